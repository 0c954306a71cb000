"""Makes the demo's model, warm-started on drawn demonstrations, once, and caches it.

Its folder is named by a digest of settings, code of this package and versions of libraries. The folder is renamed when
complete.
"""

import hashlib
import importlib.metadata
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, astuple
from pathlib import Path

from learner.store import set_default_modes
from orchestration.cluster.guard import guarded
from orchestration.demo.drawn.questions import DemoSample, tags_of, with_boxes_in
from orchestration.demo.drawn.tasks import WARM_START_WEIGHTS, generate_samples
from orchestration.demo.tiny_model import make_tiny_model
from orchestration.demo.warm_start import warm_start
from orchestration.page.formatting import progress_bars
from orchestration.settings import demo
from orchestration.settings.demo import DemoSettings
from orchestration.settings.errors import DataError
from orchestration.settings.model import ModelConfig, TinyModel
from orchestration.settings.seeds import derive_seed
from orchestration.settings.strict import build
from rewards.core import envelope
from rewards.core.config import FormatConfig

OTHER_FILES = (str(demo.__file__), str(envelope.__file__))
"""Code of the drawings, and of the form of demonstrations, outside of this package."""
LIBRARIES = ("pillow", "tokenizers", "torch", "transformers")
NUM_CORPUS_SAMPLES = 3000
"""Enough for each word of the demo to occur many times."""

CHAT_WORDS = "user\nassistant\nsystem\n"
"""Words of the chat template, which occur in no question."""
BAR_TITLE = "supervised warm start"
NUM_MARKS = 8
"""Progress lines of a warm start without a terminal, about one every fifteen seconds."""


def prepare_demo(
    root: Path,
    *,
    settings: DemoSettings,
    model: ModelConfig,
    form: FormatConfig,
    progress: Callable[[int, float], None],
) -> Path:
    """Return the folder of the warm-started model; makes it if it does not exist.

    Args:
        root: Cache folder, shared by all runs; created if it does not exist.
        settings: Equal settings have the same model.
        model: Whose `tiny` is made.
        form: Form in which its demonstrations answer.
        progress: Called after each step of the warm start with its number and loss.
    """
    target = model_folder(root, settings, model, form)
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_model(partial, settings, model, form, progress)
        set_default_modes(partial)
        if not target.is_dir():  # the first of several processes wins
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def model_folder(root: Path, settings: DemoSettings, model: ModelConfig, form: FormatConfig) -> Path:
    """Return the folder of the model of these settings, which may not exist yet."""
    return root / f"model-{model_digest(settings, model, form)}"


def model_digest(settings: DemoSettings, model: ModelConfig, form: FormatConfig) -> str:
    """Return the digest of settings, code and libraries of the warm-started model."""
    written = [asdict(tiny_of(model)), model.box_frame, form.style, *tags_of(form), form.think_prefilled]
    hasher = hashlib.blake2b(json.dumps([*astuple(settings), *written]).encode(), digest_size=8)
    for name in LIBRARIES:
        hasher.update(f"{name}=={importlib.metadata.version(name)}".encode())
    for file in (*sorted(Path(__file__).parent.rglob("*.py")), *map(Path, OTHER_FILES)):
        hasher.update(file.read_bytes())
    return hasher.hexdigest()


def tiny_of(model: ModelConfig) -> TinyModel:
    """Return what the model is made of."""
    assert model.tiny is not None, "without a path there is a tiny model, which is checked where settings are built"
    return model.tiny


def _write_model(
    folder: Path, settings: DemoSettings, model: ModelConfig, form: FormatConfig, progress: Callable[[int, float], None]
) -> None:
    """Make a tiny model, warm-start it, and write it to `folder`."""
    tiny = tiny_of(model)
    seed = derive_seed(settings.seed, "demo/warm-start")
    drawn = generate_samples(
        seed=seed,
        split="train",
        num_samples=settings.num_warm_start_samples,
        weights=WARM_START_WEIGHTS,
        questions_per_picture=settings.questions_per_picture,
        in_words=settings.in_words,
    )
    samples = [with_boxes_in(model.box_frame, sample) for sample in drawn]
    blank = folder / "blank"
    make_tiny_model(blank, tiny, corpus=_tokenizer_corpus(samples, seed, form), seed=seed, form=form)
    warm_start(blank, folder, tiny, samples=samples, settings=settings, seed=seed, progress=progress, form=form)
    shutil.rmtree(blank)


def _tokenizer_corpus(samples: Iterable[DemoSample], seed: int, form: FormatConfig) -> Iterator[str]:
    """Yield the training texts of the tokenizer: questions, demonstrations, words of the chat."""
    rng = random.Random(f"mixed-r1/demo/corpus/{seed}")
    for sample in itertools.islice(samples, NUM_CORPUS_SAMPLES):
        yield sample.question
        yield sample.demonstration(rng, form=form)
        yield CHAT_WORDS


def make_in_subprocess(cache: Path, settings: DemoSettings, model: ModelConfig, form: FormatConfig) -> Path:
    """Return the model's folder; a child process makes it if it is not there: the driver of a run never imports torch.

    Raises:
        DataError: The child failed; what it said is above.
    """
    folder = model_folder(cache, settings, model, form)
    if not folder.is_dir():
        wanted = json.dumps({"model": asdict(model), "settings": asdict(settings), "form": asdict(form)})
        command = [sys.executable, "-m", "orchestration.demo.prepare", str(cache), wanted]
        # One thread: too small a model for two, and the order of sums, hence the weights, must not depend on cores.
        settled = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
        with guarded() as marks:
            # In a group of its own, Ctrl-C reaches the parent alone, which ends the child: no traceback of torch.
            done = subprocess.run(command, env={**os.environ, **settled, **marks}, check=False, process_group=0)
        if done.returncode != 0:
            raise DataError(f"making the demo's model failed with exit code {done.returncode}; see above")
    return folder


def main() -> None:
    """Make the model as `make_in_subprocess` asks for: CACHE, then model, settings and form as JSON."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    wanted = json.loads(sys.argv[2])
    settings, form = DemoSettings(**wanted["settings"]), FormatConfig(**wanted["form"])
    model = build(ModelConfig, wanted["model"], "model")
    with progress_bars(width=34, disable=not sys.stdout.isatty()) as bars:
        bar = bars.add_task(BAR_TITLE, total=settings.warm_start_steps)

        def show(step: int, loss: float) -> None:
            bars.update(bar, completed=step, description=f"{BAR_TITLE}, loss {loss:.2f}")
            marks, before = (done * NUM_MARKS // settings.warm_start_steps for done in (step, step - 1))
            if bars.disable and marks > before:
                print(f"{BAR_TITLE}, step {step} of {settings.warm_start_steps}, loss {loss:.2f}", flush=True)

        prepare_demo(Path(sys.argv[1]), settings=settings, model=model, form=form, progress=show)


if __name__ == "__main__":
    main()
