"""What `vae explore` shows, without a page: opened runs, faces, edits, and code that makes the same pictures."""

import io
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_celeba, write_images
from explored_runs import code_in, pictures_in, write_explored_run, write_explored_sweep
from PIL import Image
from tiny_runs import LADDER, write_run
from typer.testing import CliRunner

from vae_lightning.cli.app import app
from vae_lightning.explorer import markup
from vae_lightning.explorer.edits import Edit, between, moved
from vae_lightning.explorer.faces import Face, Source
from vae_lightning.explorer.listening import FIRST_PORT, is_for_this_machine, open_socket
from vae_lightning.explorer.opening import open_workbench
from vae_lightning.explorer.photographs import MOST_BYTES, MOST_SCANS, Photographs, open_photograph
from vae_lightning.explorer.pictures import (
    edit_words,
    shown_between,
    shown_edit,
    shown_end,
    shown_original,
    shown_originals,
    shown_runs,
    shown_samples,
)
from vae_lightning.explorer.positions import as_seed, as_temperature, number_in, words_of
from vae_lightning.explorer.workbench import Workbench
from vae_lightning.latents.finer import FINER
from vae_lightning.models.levels import latent_name
from vae_lightning.runs.load import load_run

ATTRIBUTE = "Attribute_03"
TEST, SAMPLE = Face(Source.TEST, number=2), Face(Source.SAMPLE, seed=5, temperature=0.8)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A sweep with two runs of different sizes, directions fitted."""
    return open_workbench(
        str(write_explored_sweep(tmp_path_factory.mktemp("explored") / "sweep")), "best", "cpu", fits=True
    )


@pytest.fixture
def photograph(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Face:
    """Uploaded, and in the folder where code is run."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, ["it's me.png"], (300, 400))
    token = bench.photographs.keep((tmp_path / "it's me.png").read_bytes())
    return Face(Source.PHOTOGRAPH, photograph=token, name="it's me.png")


def run_code(html: str) -> dict[str, object]:
    """Runs the printed lines, which import from the package itself and not from its rooms."""
    names: dict[str, object] = {}
    assert "vae_lightning." not in code_in(html)
    exec(compile(code_in(html), "code", "exec"), names)
    return names


@pytest.mark.parametrize(
    "edit",
    [
        Edit(),
        Edit(latents={4: 1.5, 0: -0.7, 2: 0.0}),
        Edit(ranks={1: 2.0}, attributes={ATTRIBUTE: 1.3, "Attribute_04": 0.0}),
        Edit(attributes={ATTRIBUTE: -2.0, "Attribute_05": 1.0}, method="probe", orthogonal_to=("Attribute_05",)),
    ],
    ids=["unchanged", "latents", "rank and attribute", "orthogonal probes"],
)
@pytest.mark.parametrize("source", Source)
def test_the_code_of_an_edited_face_gives_its_pixels(
    source: Source, edit: Edit, bench: Workbench, photograph: Face
) -> None:
    face = {Source.TEST: TEST, Source.SAMPLE: SAMPLE, Source.PHOTOGRAPH: photograph}[source]
    picture, code = shown_edit(bench, 0, face, edit)
    run_code(code)
    assert np.array_equal(np.asarray(Image.open("face.png")), pictures_in(picture)[0])


def test_the_code_of_samples_and_of_a_way_gives_their_pixels(bench: Workbench, photograph: Face) -> None:
    picture, code = shown_samples(bench, 0, 5, 0.9, 7, "normal")
    run_code(code)
    pixels = pictures_in(picture)[0]
    assert np.array_equal(np.asarray(Image.open("samples_seed=7_temperature=0.9.png")), pixels)
    faces = load_run(bench.runs[0].vae.path).sample(5, 0.9, 7, as_pil=True)
    assert np.array_equal(pixels, np.concatenate([np.asarray(face) for face in faces], axis=1))
    for path in ("linear", "spherical"):
        picture, code = shown_between(bench, 0, photograph, SAMPLE, 30, path)
        run_code(code)
        assert np.array_equal(np.asarray(Image.open("between.png")), pictures_in(picture)[0])


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A hierarchical model, with a level that no slider moves."""
    folder = tmp_path_factory.mktemp("ladder")
    settings = {**LADDER, "reconstruction": "Logistic"}
    run = write_explored_run(folder / "run", write_celeba(folder / "celeba", 60), folder / "data", **settings)
    return open_workbench(str(run), "best", "cpu", fits=True)


@pytest.mark.parametrize("finer", FINER)
def test_a_ladders_coarse_levels_move_and_its_finer_ones_are_kept_or_drawn(
    finer: str, ladder: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = Edit(ranks={0: 2.0}, attributes={ATTRIBUTE: 1.5}, finer=finer, seed=3)
    picture, code = shown_edit(ladder, 0, TEST, edit)
    run_code(code)
    assert np.array_equal(np.asarray(Image.open("face.png")), pictures_in(picture)[0])
    before, run = ladder.latents(0, TEST), ladder.runs[0]
    after = moved(before, run, edit)
    assert (before != after)[:, :96].any()
    assert run.most_active(1)[0] < 96
    assert {"keep": before[:, 96:], "mean": torch.zeros(1, 1024)}.get(finer, after[:, 96:]).equal(after[:, 96:])
    assert after[:, 96:].equal(before[:, 96:]) == (finer == "keep")
    words = ", ".join(edit_words(ladder, 0, edit))
    assert words.startswith(latent_name(run.levels, run.most_active(1)[0]))
    assert ("finer levels (32x32)" in words) == (finer != "keep")


def test_samples_of_a_ladder_have_a_temperature_for_each_level(
    ladder: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for temperatures, name in (((1.0, 0.5, 0.1), "1_0.5_0.1"), ((0.7, 0.7, 0.7), "0.7")):
        first, *finer = temperatures
        picture, code = shown_samples(ladder, 0, 3, first, 7, "normal", *finer)
        run_code(code)
        assert np.array_equal(np.asarray(Image.open(f"samples_seed=7_temperature={name}.png")), pictures_in(picture)[0])
    with pytest.raises(ValueError, match="temperature"):
        shown_samples(ladder, 0, 3, 1.0, 7, "normal", 0.5, -1)
    for path in ("linear", "spherical"):
        picture, code = shown_between(ladder, 0, TEST, SAMPLE, 30, path)
        run_code(code)
        assert np.array_equal(np.asarray(Image.open("between.png")), pictures_in(picture)[0])


def test_the_code_of_several_runs_gives_a_picture_of_each_at_its_own_size(bench: Workbench, photograph: Face) -> None:
    pictures, code = shown_runs(bench, photograph, Edit(ranks={0: 1.0}, attributes={ATTRIBUTE: 1.0}))
    shown = pictures_in(pictures)
    run_code(code)
    assert [picture.shape for picture in shown] == [(32, 32, 3), (64, 64, 3)]
    for number, picture in enumerate(shown, start=1):
        assert np.array_equal(np.asarray(Image.open(f"run_{number}.png")), picture)


def test_latents_move_by_standard_deviations_of_faces(bench: Workbench) -> None:
    run = bench.runs[0]
    assert run.statistics is not None
    latents = bench.latents(0, TEST)
    most_active = int(run.statistics.kl_nats.argmax())  # type: ignore[union-attr]
    change = moved(latents, run, Edit(latents={3: -1.5}, ranks={0: 2.0})) - latents
    expected = torch.zeros(1, 6)
    expected[0, 3] = -1.5 * run.statistics.std[3]
    if most_active != 3:
        expected[0, most_active] = 2 * run.statistics.std[most_active]
    assert torch.allclose(change, expected, atol=1e-6)
    assert latents.equal(bench.latents(0, TEST))


def test_attributes_move_along_their_directions(bench: Workbench) -> None:
    run = bench.runs[0]
    latents = bench.latents(0, SAMPLE)
    change = moved(latents, run, Edit(attributes={ATTRIBUTE: 2.0})) - latents
    direction = load_run(run.vae.path).directions().direction(ATTRIBUTE)
    assert torch.allclose(change[0], 2 * direction.spread * direction.vector, atol=1e-5)
    kept = moved(latents, run, Edit(attributes={ATTRIBUTE: 2.0}, orthogonal_to=[ATTRIBUTE, "Attribute_09"])) - latents
    assert run.directions is not None
    normal = run.directions.normals[run.directions.names.index("Attribute_09")].float()
    assert abs(float(kept[0] @ normal)) < 1e-5 < abs(float(change[0] @ normal))


def test_the_ends_of_a_way_are_its_faces(bench: Workbench) -> None:
    first, second = bench.latents(0, TEST), bench.latents(0, SAMPLE)
    assert between(first, second, 0, "linear").equal(first)
    assert torch.allclose(between(first, second, 100, "spherical"), second, atol=1e-5)
    assert torch.allclose(between(first, second, 25, "linear"), 0.75 * first + 0.25 * second, atol=1e-6)


def test_originals_are_the_test_faces_and_reconstructions_the_models(bench: Workbench) -> None:
    run = load_run(bench.runs[0].vae.path)
    face = run.held_out_faces("test", 100)[1]
    original, reconstruction = pictures_in(shown_original(bench, 0, TEST))
    assert np.array_equal(original, face.permute(1, 2, 0).numpy())
    assert np.array_equal(reconstruction, np.asarray(run.reconstruct(face, as_pil=True)[0]))
    assert len(pictures_in(shown_original(bench, 0, SAMPLE))) == 1
    assert np.array_equal(pictures_in(shown_end(bench, 0, TEST))[0], original)
    sample = pictures_in(shown_end(bench, 0, SAMPLE))[0]
    assert np.array_equal(sample, np.asarray(run.sample(1, 0.8, 5, as_pil=True)[0]))
    assert [picture.shape[0] for picture in pictures_in(shown_originals(bench, TEST))] == [32, 64]
    assert shown_originals(bench, SAMPLE) == ""


def test_a_photograph_is_seen_upright_as_its_camera_says(bench: Workbench, tmp_path: Path) -> None:
    write_images(tmp_path, ["upright.png"], (300, 400))
    upright = Image.open(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = io.BytesIO()
    upright.rotate(90, expand=True).save(turned, format="png", exif=exif)
    face = Face(Source.PHOTOGRAPH, photograph=bench.photographs.keep(turned.getvalue()))
    assert bench.pixels(0, face).equal(bench.runs[0].vae.preprocess(upright)[0])


def png_header(width: int, height: int) -> bytes:
    """A picture that says how large it is, and has no pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b""))


def png_bytes() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (200, 250), "teal").save(encoded, format="png")
    return encoded.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (b"no picture", "not an image"),
        (b"", "not an image"),
        (png_header(8000, 8000), "8000x8000 pixels, more than 50 million"),
        (png_header(1, 50_000_000), "1x50000000 pixels, more than 32,768 on a side"),
        (png_header(50_000_000, 1), "50000000x1 pixels, more than 32,768 on a side"),
        (png_header(60, 60), "cannot be decoded"),
        (bytes(MOST_BYTES + 1), "more than 10 MB"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "not an image"),
        (b"PK\x05\x06" + bytes(18), "not an image"),
        (b"\xff\xd8" + b"\xff\xda" * (MOST_SCANS + 1), "more than 100 scans"),
    ],
    ids=[
        "text",
        "empty",
        "too many pixels",
        "one column",
        "one row",
        "damaged",
        "too many bytes",
        "a program",
        "svg",
        "zip",
        "many scans",
    ],
)
def test_what_is_no_photograph_is_refused_in_words(encoded: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_photograph(encoded)


def test_one_photograph_is_decoded_at_a_time(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []  # more of them would decode side by side, and each would keep the memory that it took

    def decode(encoded: bytes) -> Image.Image:
        threads.append(threading.get_ident())
        return open_photograph(encoded)

    monkeypatch.setattr("vae_lightning.explorer.photographs.open_photograph", decode)
    photographs = Photographs([bench.runs[0].vae])
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(photographs.keep, [png_bytes()] * 4))) == 4
    assert len(threads) == 4
    assert len(set(threads)) == 1


def test_only_the_last_photographs_are_kept_and_of_one_visitor_fewer(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_lightning.explorer.photographs.MOST_KEPT", 6)
    monkeypatch.setattr("vae_lightning.explorer.photographs.MOST_OF_ONE", 3)
    photographs, run, encoded = Photographs([bench.runs[0].vae]), bench.runs[0].vae, png_bytes()
    mine = photographs.keep(encoded, "me")
    first, *others = [photographs.keep(encoded, "greedy") for _ in range(4)]
    for token in (*others, mine):
        assert photographs.pixels(token, run).shape == (3, 32, 32)
    for token in (first, "guessed"):
        with pytest.raises(ValueError, match="choose the file again"):
            photographs.pixels(token, run)
    with pytest.raises(ValueError, match="no photograph yet"):
        photographs.pixels("", run)
    for number in range(3):
        photographs.keep(encoded, f"another {number}")
    assert photographs.pixels(mine, run).shape == (3, 32, 32)  # was looked at after those of the greedy one
    with pytest.raises(ValueError, match="choose the file again"):
        photographs.pixels(others[0], run)


def test_a_sweep_says_which_runs_are_left_out(bench: Workbench, tmp_path: Path) -> None:
    assert [run.label for run in bench.runs] == ["β=1", "β=4"]
    assert len(bench.left_out) == 1
    assert bench.left_out[0].startswith("β=10 (failed) is left out: ")
    sweep = write_explored_sweep(tmp_path / "other")
    diverged = sweep / "beta=1" / "checkpoints" / "best.ckpt"
    content = torch.load(diverged)
    for weights in content["state_dict"].values():
        weights.fill_(torch.nan)
    torch.save(content, diverged)
    (sweep / "beta=4" / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"none of its 3 runs.*β=1 .*diverged.*β=4 .*read safely"):
        open_workbench(str(sweep), "best", "cpu", fits=False)


def test_without_data_there_are_samples_and_photographs(tmp_path: Path, photograph: Face) -> None:
    write_run(tmp_path / "run", posterior="gaussian")
    bench = open_workbench(str(tmp_path / "run"), "best", "cpu", fits=True)
    run = bench.runs[0]
    notes = " ".join(run.notes)
    assert "No test faces" in notes
    assert "vae edit directions" in notes
    assert run.most_active(4) == [0, 1, 2, 3]
    token = bench.photographs.keep(Path("it's me.png").read_bytes())
    uploaded = Face(Source.PHOTOGRAPH, photograph=token, name="it's me.png")
    for face in (SAMPLE, uploaded):
        picture, code = shown_edit(bench, 0, face, Edit(latents={2: 1.5}))
        run_code(code)
        assert np.array_equal(np.asarray(Image.open("face.png")), pictures_in(picture)[0])
    with pytest.raises(ValueError, match="test faces are not there"):
        shown_edit(bench, 0, TEST, Edit())
    with pytest.raises(ValueError, match="vae edit directions"):
        shown_edit(bench, 0, SAMPLE, Edit(attributes={"Smiling": 1.0}))


def test_a_plain_autoencoder_is_not_sampled_and_says_why(tmp_path: Path) -> None:
    write_run(tmp_path / "run", posterior="deterministic")
    bench = open_workbench(str(tmp_path / "run"), "best", "cpu", fits=False)
    with pytest.raises(ValueError, match=r"vae evaluate .* --metrics samplers"):
        shown_edit(bench, 0, SAMPLE, Edit())
    html, _ = shown_runs(bench, SAMPLE, Edit())
    assert "plain autoencoder" in html
    assert not pictures_in(html)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda bench: shown_samples(bench, 0, 65, 1, 0, "normal"), "from 1 to 64"),
        (lambda bench: shown_samples(bench, 0, 4, 1, 0, "flow"), "there is no 'flow'; there are normal"),
        (lambda bench: shown_edit(bench, 0, Face(Source.TEST, number=99), Edit()), "1 to 6"),
        (lambda bench: shown_between(bench, 0, TEST, SAMPLE, 101, "linear"), "0 to 100"),
        (lambda bench: shown_between(bench, 0, TEST, SAMPLE, 50, "strait"), "there are linear, spherical"),
        (lambda bench: as_seed(None), "whole number"),
        (lambda bench: as_seed(-1), "whole number"),
        (lambda bench: as_seed(True), "whole number"),
        (lambda bench: as_seed(10**3000), "from 0 to 2147483647"),
        (lambda bench: as_temperature(float("nan")), "from 0 to 2"),
        (lambda bench: as_temperature("1"), "from 0 to 2"),
        (lambda bench: number_in(float("inf"), "slider", -3.0, 3.0), "from -3 to 3"),
        (lambda bench: words_of(["a"] * 3, "attributes", ["a"], 2), "at most 2"),
        (lambda bench: words_of(["x" * 1000], "attributes", ["a"], 2), "no 'x{40}'; there are a"),
        (lambda bench: words_of([["a"]], "attributes", ["a"], 2), "there are a"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(
    ask: Callable[[Workbench], object], words: str, bench: Workbench
) -> None:
    with pytest.raises(ValueError, match=words):
        ask(bench)


def test_names_of_files_are_words_on_the_page_and_nothing_more() -> None:
    name = '"><script>alert(1)</script>{{x}}${y}`.png'
    picture = markup.figure(Image.new("RGB", (2, 2)), name, name, name, name)
    html = picture + markup.empty_figure(name, name) + markup.code(name, name) + markup.problem(name)
    html += markup.side_by_side([picture], name) + markup.header(name, name, [name]) + markup.footer(name)
    assert html.count("<img") == 2  # what a macro made is not escaped again
    assert not [part for part in ("<script", "{", "}", "$", "`") if part in html]


def test_a_port_that_is_taken_is_refused_or_passed_over() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}"):
            open_socket("127.0.0.1", port)
    with open_socket("127.0.0.1", None) as first, open_socket("127.0.0.1", None) as second:
        assert FIRST_PORT <= first.getsockname()[1] < second.getsockname()[1]
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(ValueError, match=f"--host {re.escape(host)}: .*name an address of this machine"):
            open_socket(host, 0)


@pytest.mark.parametrize(
    ("address", "is_here"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_which_addresses_are_for_this_machine_alone(address: str, is_here: bool) -> None:
    assert is_for_this_machine(address) is is_here


def test_a_page_that_others_see_names_no_folder_of_this_machine(tmp_path: Path, caplog: Any) -> None:
    write_run(tmp_path / "sweep" / "run", posterior="deterministic")
    file = str(tmp_path / "sweep" / "run")
    bench = open_workbench(file, "best", "cpu", fits=True, shared=True)
    face = Face(Source.PHOTOGRAPH, photograph=bench.photographs.keep(png_bytes()), name="me.png")
    errors = []
    for source, edit in ((SAMPLE, Edit()), (face, Edit(attributes={"Smiling": 1.0}))):
        with pytest.raises(ValueError, match="vae ") as error:
            shown_edit(bench, 0, source, edit)
        errors.append(bench.told(error.value))
    code = shown_edit(bench, 0, face, Edit())[1]
    assert "load_run('run/checkpoints/best.ckpt')" in code_in(code)
    page = " ".join([*bench.runs[0].notes, *errors, code])
    assert str(tmp_path) not in page
    assert "vae edit directions run" in page
    assert "the terminal of vae explore says why" in page
    assert str(tmp_path) in caplog.text
    here = open_workbench(file, "best", "cpu", fits=True)
    assert str(tmp_path) in " ".join(here.runs[0].notes)


def test_without_gradio_the_extra_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["explore", "no/such/run"])
    assert result.exit_code == 2
    assert "pip install -e '.[explore]'" in result.output
