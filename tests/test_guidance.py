import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from stand_ins import noise_images, subject_of
from torch import Tensor, nn
from torch.distributions import Bernoulli, kl_divergence

from vae_lightning.editing.attributes import guidance
from vae_lightning.editing.attributes.guidance import GuidanceSettings, guide
from vae_lightning.editing.attributes.guided_faces import guide_faces
from vae_lightning.models import Autoencoder, ConvVAE
from vae_lightning.recognition import Recognizer

NAMES = ("Smiling", "Male", "Young")


class PixelsAreLatents(Autoencoder):
    """The logit of pixel j is latent j."""

    def __init__(self, **others: str) -> None:
        super().__init__(image_size=2, color="gray", latent_dim=4, posterior="deterministic", **others)
        self.unused = nn.Parameter(torch.zeros(1))

    def posterior_parameters(self, images: Tensor) -> Tensor:
        return torch.logit(images, eps=1e-3).flatten(1)

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1, 1, 2, 2)


class LinearClassifier(Recognizer):
    """Log-odds that are linear in the latents of `PixelsAreLatents`."""

    def __init__(self) -> None:
        super().__init__(32, "gray")
        self.names = NAMES
        self.register_buffer("weights", torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.5, 0, 0, -1]]))
        self.seen: tuple[int, ...] = ()

    def embed(self, images: Tensor) -> Tensor:
        self.seen = tuple(images.shape)
        assert images.min() >= 0
        assert images.max() <= 1
        return torch.logit(images[:, 0].flatten(1))

    def read_features(self, features: Tensor) -> Tensor:
        return features @ self.weights.T - 1.0


class ConvolutionalClassifier(Recognizer):
    def __init__(self) -> None:
        super().__init__(32)
        self.names = NAMES
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten())
        self.head = nn.LazyLinear(3)
        self.train()(torch.rand(16, 3, 32, 32))  # running statistics that are not the default

    def embed(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def read_features(self, features: Tensor) -> Tensor:
        return 20 * self.head(features)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 0.7


@pytest.fixture(scope="module")
def networks() -> tuple[Autoencoder, Recognizer]:
    """As they come from a training: weights ask for gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConvVAE(32, [8, 16, 16], latent_dim=4).eval(), ConvolutionalClassifier().eval()


@pytest.mark.parametrize("wanted", [True, False])
def test_guidance_ends_at_the_minimum_of_its_loss(latents: Tensor, wanted: bool) -> None:
    """The minimum lies on the line along the classifier's weights, where one number is left to find."""
    settings = GuidanceSettings(num_steps=250, lr=0.05, distance_weight=0.2)
    guided = guide(PixelsAreLatents().eval(), LinearClassifier().eval(), latents, {"Smiling": wanted}, settings)
    weights = np.array([1.0, 2.0, 0.0, 0.0])
    sign = 1.0 if wanted else -1.0
    for face, start in enumerate(latents.double().numpy()):
        found = minimize_scalar(
            lambda way, start=start: np.logaddexp(0, -sign * ((start + way * weights) @ weights - 1)) + way**2
        )  # 0.2 |way * weights|^2 = way^2
        np.testing.assert_allclose(guided.latents[face], start + found.x * weights, atol=2e-3)
        assert guided.losses[-1, face] == pytest.approx(found.fun, abs=1e-4)
        before, after = start @ weights - 1, (start + found.x * weights) @ weights - 1
        assert guided.log_odds_before[face, 0] == pytest.approx(before, abs=1e-4)
        assert guided.log_odds_after[face, 0] == pytest.approx(after, abs=1e-2)


def test_guidance_goes_the_planted_way_and_down(latents: Tensor) -> None:
    """The default loss, averaged over faces and windows of ten steps; the way once Adam has converged."""
    networks = PixelsAreLatents().eval(), LinearClassifier().eval()
    planted = torch.tensor([1.0, 2.0, 0.0, 0.0])
    converged = guide(*networks, latents, {"Smiling": True}, GuidanceSettings(num_steps=250, lr=0.05))
    assert torch.cosine_similarity(converged.latents - latents, planted[None]).min() > 0.99
    guided = guide(*networks, latents, {"Smiling": True}, GuidanceSettings())
    windows = guided.losses.mean(1)[:200].unflatten(0, (20, 10)).mean(1)
    assert windows.diff().max() < 1e-3
    assert windows[-1] < 0.5 * windows[0]


def test_parts_of_the_loss_are_nats_summed_over_targets(latents: Tensor) -> None:
    settings = GuidanceSettings(num_steps=30, lr=0.05, distance_weight=0.3, hold_others=True, num_shown=3)
    targets = {"Young": True, "Smiling": False}
    guided = guide(PixelsAreLatents().eval(), LinearClassifier().eval(), latents, targets, settings)
    weights = LinearClassifier().weights
    before, after = (Bernoulli(logits=points @ weights.T - 1) for points in (latents, guided.latents))
    surprise = -after.log_prob(torch.tensor([0.0, 0.0, 1.0]))
    change = kl_divergence(before, after)[:, 1]
    torch.testing.assert_close(guided.classification_nats[-1], surprise[:, 0] + surprise[:, 2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guided.others_nats[-1], change, atol=1e-4, rtol=1e-4)
    assert guided.others_nats[-1].max() > 1e-3
    assert guided.others_nats[0].abs().max() < 1e-6
    distance = (guided.latents - latents).square().sum(1)
    torch.testing.assert_close(guided.squared_distance[-1], distance)
    total = guided.classification_nats + 0.3 * guided.squared_distance + guided.others_nats
    torch.testing.assert_close(guided.losses, total)
    assert guided.losses.shape == (31, 5)
    torch.testing.assert_close(guided.log_odds_after, after.logits[:, [2, 0]], atol=1e-4, rtol=1e-4)


def test_holding_the_others_changes_them_less(latents: Tensor) -> None:
    changes = {}
    for hold in (False, True):
        settings = GuidanceSettings(num_steps=100, lr=0.05, hold_others=hold)
        guided = guide(PixelsAreLatents().eval(), LinearClassifier().eval(), latents, {"Smiling": True}, settings)
        assert (guided.log_odds_after > guided.log_odds_before).all()
        changes[hold] = guided.others_nats[-1]
    assert (changes[True] < 0.8 * changes[False]).all()


def test_a_batch_gives_what_single_images_give(
    networks: tuple[Autoencoder, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    settings = GuidanceSettings(num_steps=40, lr=0.02, num_shown=2)
    together = guide(*networks, latents, {"Smiling": True, "Male": False}, settings)
    assert (together.latents - latents).abs().max() > 0.05
    monkeypatch.setattr(guidance, "PIXELS_AT_ONCE", 32**2)  # one image at once
    apart = guide(*networks, latents, {"Smiling": True, "Male": False}, settings)
    for name in guidance.Guided.__dataclass_fields__:
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(apart.path[-1], apart.latents)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_networks_are_untouched_in_every_gradient_mode(
    networks: tuple[Autoencoder, nn.Module], mode: Callable[[], torch.inference_mode]
) -> None:
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    random_state = torch.get_rng_state()
    with mode():
        latents = torch.ones(2, 4)
        guided = guide(*networks, latents, {"Male": True}, GuidanceSettings(num_steps=5, num_shown=1))
        assert torch.equal(latents, torch.ones(2, 4))
    assert (guided.losses[-1] < guided.losses[0]).all()
    assert not any(tensor.requires_grad for tensor in vars(guided).values())
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_classifiers_get_three_channels_in_0_to_1_whatever_the_range_of_the_model() -> None:
    classifier = LinearClassifier().eval()
    model = PixelsAreLatents(output_activation="tanh").eval()
    guided = guide(model, classifier, torch.full((2, 4), 0.5), {"Male": True}, GuidanceSettings(1, num_shown=1))
    assert classifier.seen == (2, 3, 2, 2)
    # (tanh(z) + 1) / 2 = sigmoid(2 z), so the classifier finds twice the latents
    assert guided.log_odds_before[0, 0] == pytest.approx(2 * (0.5 + 0.5) - 1, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps=0: at least 1"),
        ({"lr": 0.0}, "lr=0.0: expected more than 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"distance_weight": -1.0}, "distance_weight=-1.0: expected 0 or more"),
        ({"num_steps": 4, "num_shown": 5}, "num_shown=5: expected 1 to num_steps=4"),
    ],
)
def test_settings_say_what_is_allowed(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidanceSettings(**settings)


def test_errors_name_the_attribute_and_the_fix(latents: Tensor) -> None:
    model, classifier, settings = PixelsAreLatents().eval(), LinearClassifier().eval(), GuidanceSettings(2, num_shown=1)
    with pytest.raises(ValueError, match=r"attribute=smiling.*did you mean Smiling.*Smiling, Male, Young"):
        guide(model, classifier, latents, {"smiling": True}, settings)
    with pytest.raises(ValueError, match="no target: name one attribute"):
        guide(model, classifier, latents, {}, settings)
    with pytest.raises(ValueError, match="hold_others"):
        guide(
            model, classifier, latents, dict.fromkeys(NAMES, True), GuidanceSettings(2, hold_others=True, num_shown=1)
        )
    with pytest.raises(ValueError, match=r"LinearClassifier is in training mode.*eval\(\)"):
        guide(model, LinearClassifier(), latents, {"Male": True}, settings)
    classifier.target = "factors"
    with pytest.raises(ValueError, match=r"predicts factors \(Smiling.*attribute classifier"):
        guide(model, classifier, latents, {"Male": True}, settings)


def test_faces_give_a_picture_and_a_row_each() -> None:
    subject = subject_of(PixelsAreLatents(), noise_images(4, size=2))
    faces = subject.pixels("test", np.arange(3))
    settings = GuidanceSettings(num_steps=60, lr=0.05, num_shown=3)
    labels = ["first", "second", "third"]
    outcome = guide_faces(
        subject, LinearClassifier().eval(), faces, labels, {"Smiling": True, "Young": False}, settings
    )
    assert settings.shown_steps == [20, 40, 60]
    assert set(outcome.pictures) == {"guidance", "loss"}
    rows = outcome.tables["faces"]
    assert [row["face"] for row in rows] == labels
    latents = torch.logit(faces.float() / 255, eps=1e-3).flatten(1)
    smiling = (latents @ torch.tensor([1.0, 2.0, 0.0, 0.0]) - 1).sigmoid()
    assert [row["Smiling before"] for row in rows] == pytest.approx(smiling.tolist(), abs=1e-4)
    moved = guide(
        subject.model, LinearClassifier().eval(), latents, {"Smiling": True, "Young": False}, settings
    ).latents
    young = (moved @ torch.tensor([0.5, 0.0, 0.0, -1.0]) - 1).sigmoid()
    assert [row["Young after"] for row in rows] == pytest.approx(young.tolist(), abs=1e-3)
    assert all(row["loss last"] < row["loss first"] for row in rows)
    assert outcome.protocol["median"]["probability_before"]["Smiling"] == pytest.approx(
        float(smiling.median()), abs=1e-4
    )
    asked = [row["Smiling after"] > 0.5 and row["Young after"] < 0.5 for row in rows]
    assert [row["as asked"] == "yes" for row in rows] == asked
    assert outcome.protocol["found"].startswith(f"on {sum(asked)} of 3 faces, before on ")
    assert "whose AUC is not known here" in outcome.protocol["found"]
    picture = outcome.pictures["guidance"]  # 3 rows and 5 columns of faces enlarged to 128 pixels
    assert picture.shape[0] >= 3 * 128
    assert picture.shape[1] >= 5 * 128
