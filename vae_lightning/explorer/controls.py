"""Controls that several tabs have, and how a tab answers an event."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr

from vae_lightning.explorer import markup
from vae_lightning.explorer.faces import Face, Source
from vae_lightning.explorer.photographs import MOST_BYTES
from vae_lightning.explorer.positions import HIGHEST_TEMPERATURE, as_seed, as_temperature, whole_in, word_of
from vae_lightning.explorer.workbench import TEST_FACES, Workbench

MOST_CHARACTERS = 255  # of the name of a file
TEMPERATURE = 0.7  # at first: most models look better so than at 1
# No queue: one request, one answer. While a request is under way, only the last of a slider's later positions is sent.
# No preprocessing: Gradio answers a wrong value with a traceback in the terminal, so that `positions` checks values.
QUIET: dict[str, Any] = {
    "queue": False,
    "preprocess": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}
UPLOADER = f"""<label class="uploader"><span>WHOSE: choose a photograph</span>
<input type="file" accept="image/*" data-most-bytes="{MOST_BYTES}"></label>
<p class="status" role="status"></p>"""
# the file goes to this server's own address, which keeps nothing on disk; see `server.receive`
SEND_PHOTOGRAPH = """
element.addEventListener('change', async (event) => {
  const file = event.target.files[0], most = Number(event.target.dataset.mostBytes);
  const tell = (words) => { element.querySelector('.status').textContent = words; };
  if (!file) return;
  tell(`${file.name} is being read`);
  let answer;
  if (file.size > most) answer = {problem: `the file has more than ${most / 2 ** 20} MB: make it smaller`};
  else try {
    const headers = {'Content-Type': 'application/octet-stream'};
    let response = await fetch('photograph', {method: 'POST', headers, body: file});
    for (let tries = 0; response.status === 503 && tries < MOST_TRIES; tries++) {
      tell(`${file.name} waits: many photographs come in`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get('Retry-After'))));
      response = await fetch('photograph', {method: 'POST', headers, body: file});
    }
    answer = await response.json();
  } catch (error) {
    answer = {problem: 'the server does not answer; is vae explore still running?'};
  }
  event.target.value = '';
  if (answer.problem) return tell(`${file.name}: ${answer.problem}`);
  tell(file.name);
  props.value = `${answer.token} ${file.name}`;
  trigger('upload');
});
""".replace("MOST_TRIES", "10")


class FaceChooser:
    """Controls to choose a test face, a photograph or a sample.

    Args:
        workbench: whose test faces there are.
        whose: the name of the face in labels.
        number: of the test face, at first.
    """

    def __init__(self, workbench: Workbench, whose: str, number: int = 1) -> None:
        most = max(run.num_test_faces for run in workbench.runs)
        has_samples = any(run.priors for run in workbench.runs)
        is_there = {Source.TEST: most > 0, Source.PHOTOGRAPH: True, Source.SAMPLE: has_samples}
        sources = [source.value for source, there in is_there.items() if there]
        first = Source.SAMPLE.value if not most and has_samples else sources[0]
        number = min(number, max(most, 1))
        self.source = gr.Radio(sources, value=first, label=whose)
        self.number = gr.Slider(1, max(most, 2), number, step=1, label=f"{whose}: number")
        template = UPLOADER.replace("WHOSE", whose)
        self.photograph = gr.HTML("", html_template=template, js_on_load=SEND_PHOTOGRAPH)
        with gr.Row() as self.sample:
            self.seed = gr.Number(number, label=f"{whose}: seed", precision=0, min_width=120)
            self.temperature = gr.Slider(
                0, HIGHEST_TEMPERATURE, TEMPERATURE, step=0.05, label=f"{whose}: temperature", min_width=120
            )
        self.values: list[Any] = [first, number, "", number, TEMPERATURE]  # of the inputs, at first
        parts = [self.number, self.photograph, self.sample]
        show_parts(first, parts)
        self.source.change(lambda source: visible_parts(source), self.source, parts, **QUIET)
        self.photograph.upload(lambda: Source.PHOTOGRAPH.value, None, self.source, **QUIET)

    @property
    def inputs(self) -> list[Any]:
        """Components; `face_of` takes their values."""
        return [self.source, self.number, self.photograph, self.seed, self.temperature]

    @property
    def triggers(self) -> list[Any]:
        return [
            self.source.change,
            self.number.change,
            self.photograph.upload,
            self.seed.change,
            self.temperature.change,
        ]


NUM_FACE_VALUES = 5


def face_of(source: object, number: object, photograph: object, seed: object, temperature: object) -> Face:
    """
    Raises:
        ValueError: a value that is not allowed.
    """
    kind = word_of(source, "face", list(Source))
    if kind == Source.SAMPLE:
        return Face(Source.SAMPLE, seed=as_seed(seed), temperature=as_temperature(temperature))
    if kind == Source.PHOTOGRAPH:
        token, _, name = photograph.partition(" ") if isinstance(photograph, str) else ("", "", "")
        if len(token) > MOST_CHARACTERS or len(name) > MOST_CHARACTERS:
            raise ValueError(f"photograph: its name has more than {MOST_CHARACTERS} characters")
        return Face(Source.PHOTOGRAPH, photograph=token, name=name)
    return Face(Source.TEST, number=whole_in(number, "test face", 1, TEST_FACES))


def show_parts(source: str, parts: Sequence[Any]) -> None:
    """Shows the controls for this source only."""
    for part, is_visible in zip(parts, _visible(source), strict=True):
        part.visible = is_visible


def visible_parts(source: object) -> list[Any]:
    return [gr.update(visible=is_visible) for is_visible in _visible(source)]


def _visible(source: object) -> list[bool]:
    return [source == one for one in (Source.TEST, Source.PHOTOGRAPH, Source.SAMPLE)]


def run_choice(workbench: Workbench) -> gr.Dropdown:
    """Which run of a sweep; hidden where there is one run only."""
    runs = [(run.label, number) for number, run in enumerate(workbench.runs)]
    return gr.Dropdown(runs, value=0, label="Run", visible=len(runs) > 1, filterable=False)


def chosen_run(workbench: Workbench, number: object) -> int:
    """
    Raises:
        ValueError: no such run.
    """
    return whole_in(number, "run", 0, len(workbench.runs) - 1)


def code_part() -> gr.HTML:
    """The place for lines of code; it stays open while the picture changes."""
    with gr.Accordion("Python code of this picture", open=False):
        return gr.HTML()


def problem_part() -> gr.HTML:
    return gr.HTML(elem_classes=["problem-part"])


def answering(
    workbench: Workbench, show: Callable[..., Sequence[Any]], num_outputs: int
) -> Callable[..., tuple[Any, ...]]:
    """Adds an output for the message of an error; on an error the other outputs stay as they are."""

    @wraps(show)
    def answer(*values: Any) -> tuple[Any, ...]:
        try:
            return (*show(*values), "")
        except ValueError as error:
            return (*[gr.skip()] * num_outputs, markup.problem(workbench.told(error)))

    return answer


def fill(parts: Sequence[gr.HTML], answer: Sequence[Any]) -> None:
    """Fills the page before its first event; a part that the answer leaves as it is stays empty."""
    for part, value in zip(parts, answer, strict=True):
        part.value = value if isinstance(value, str) else ""
