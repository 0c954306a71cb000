"""Whatever is typed behind `mixed-r1` ends with a result or with one line and an exit code, never with a traceback."""

import re
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest

from learner.errors import DivergedError, ExplodingGradientError, NonFiniteLossError
from orchestration import cli
from orchestration.settings.describe import meaning
from orchestration.usage import HELP

VERBS = ("plan", "train", "evaluate", "report", "config", "data build")
MALFORMED = [
    "...", "…", "=", "=3", "==", "+", "~", "~~x", "++", "+=", ".", "a.", ".a", "a..b=1", "a b", "a b=1", "ключ=1",
    "a=b", "-", "--", "-m", "--multirun", "--cfg=job", "--config-dir=/x", "--config-name", "--seed=3", "--seed",
    "-x", "--json=1", "seed", "seed=", "seed=x", "seed=[1", "seed={", "seed='", "seed=1,2", "seed=${", "seed=${x}",
    "seed=${seed}", "seed=choice(1,2)", "seed=range(1)", "seed=1e999", "seed.x=1", "+seed=1", "~learner",
    "~algorithm.name", "~nothing", "algorithm=", "algorithm=grop", "algorithm=[x]", "algorithm=../x",
    "algorithm={a: 1}", "algorithm@=x", "algorithm/x=y", "model@data=qwen2_5_vl", "experiment=/", "experiment=.",
    "experiment=a:b", "hydra.x=1", "hydra={}", "learner.freeze=[a<b]", "learner.freeze=x", "learner=1",
    "training=null", "cluster.nodes=[1]", "cluster.nodes=[{count: x}]", "cluster.nodes.0.gpus=1",
    "cluster.nodes[0].gpus=1", "+reward.rules=[{]", "run_dir=", "run_dir=null", "run_dir=${",
    "run_dir=${oc.env:NO_SUCH}", "hydra.searchpath=x", "data.recipe=null",
    "learner.lora.rank=8",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(("verb", "argument"), zip(cycle(VERBS), MALFORMED, strict=False))
def test_a_malformed_argument_ends_with_one_line_and_code_2(
    verb: str, argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever comes so far would begin to work.
    monkeypatch.setattr(cli, "_end_in_order", lambda: pytest.fail("the argument was taken"))
    folders = [] if argument.startswith("run_dir=") else [f"run_dir={tmp_path / 'run'}"]

    code, out, err = run(capsys, *verb.split(), *folders, argument)

    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", [*HELP, "score"])
def test_every_verb_says_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        code, out, err = run(capsys, *verb.split(), flag)

        assert (code, err) == (0, "")
        assert out.startswith(f"usage: mixed-r1 {verb}")


def test_help_explains_the_settings_that_it_names() -> None:
    assert [key for _, _, keys in HELP.values() for key in keys if not meaning(key)] == []


def test_help_explains_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "config", "--help", "training.keep_last")

    assert (code, out) == (0, "training.keep_last (int)\nNewest complete checkpoints that stay.\n")


def test_help_of_a_list_of_settings_says_what_each_entry_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "config", "--help", "cluster.nodes")

    assert code == 0
    assert "\n  memory_gib (float): Host memory of each machine.\n" in out


def test_a_machine_without_gpus_needs_no_kind_of_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "config", "cluster.nodes=[{count: 1, gpus: 0, cpus: 8, memory_gib: 64}]")

    assert (code, err) == (0, "")


def test_the_version_is_told_with_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")

    assert code == 0
    assert out.startswith("mixed-r1 0.1.0, commit ")


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["config", "+rollout.sampling.top_a=50"], "rollout.sampling.top_a is not a setting"),
        (["report", "run_dir=runs/typo"], "holds no run"),
        (["data", "build", "data=mixed_45k"], "data.recipe.raw is not set"),
        (["data", "build", "data=mixed_45k", "data.recipe.raw=/raw"], "model.path is not set"),
        (["data", "build", "data=parquet"], "data.train is not set; point it at"),
        (["data", "look"], "needs a file or a folder first"),
        (["data", "look", "/no/file.jsonl"], "/no/file.jsonl does not exist"),
        (["train", "data=mixed_45k"], "data.recipe.raw is not set"),
        (["train", "data=mixed_45k", "model=qwen2_5_vl"], "model.path is not set"),
        (["train", "data=parquet"], "data.train is not set; point it at"),
        (
            ["submit", "experiment=qwen2_5_vl_7b/2_nodes", "cluster=ray", "run_dir=/s/r", "cache_dir=/s/c"],
            "data.train is not set; point it at",
        ),
        (["submit", "cluster=ray", "run_dir=~/r", "cache_dir=/s/c"], "run_dir=~/r is relative"),
        (["data", "sources", "all"], "takes no arguments"),
        (["data", "bild"], "did you mean build?"),
        (["trian"], "trian is not a verb; did you mean train?"),
        (["--verbose"], "--verbose is not a verb; known verbs: check, config, data"),
        (
            ["train", "data.train=/no/train", "data.held_out=/no/held_out", "model.path=/no/model"],
            "data.train=/no/train does not exist; correct the path, or build it (mixed-r1 data build); "
            "data.held_out=/no/held_out does not exist; correct the path, or build it (mixed-r1 data build); "
            "model.path=/no/model does not exist",
        ),
    ],
)
def test_a_mistake_names_the_way(arguments: list[str], phrase: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)

    assert (code, out) == (2, "")
    assert phrase in err


def test_a_report_of_a_folder_without_a_run_makes_nothing_and_names_the_run_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "config.json").write_text("{}")

    code, _, err = run(capsys, "report", "run_dir=runs/frist")

    assert code == 2
    assert f"did you mean {tmp_path}/runs/first?" in err
    assert not (tmp_path / "runs" / "frist").exists()


def test_output_may_be_cut_off_by_whoever_reads_it(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m orchestration.cli config | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert re.fullmatch("run_dir: .*\n", done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(("uses_ray", "said"), [(True, "exit function\n"), (False, "exit function\ntorn down\n")])
@pytest.mark.parametrize(("verb", "code"), [("version", 0), ("nonsense", 2)])
def test_a_process_that_used_ray_leaves_without_the_teardown_in_which_rays_threads_crash(
    uses_ray: bool, said: str, verb: str, code: int
) -> None:
    program = f"""
import atexit, os, sys
from orchestration import cli
class Torn:
    def __del__(self, write=os.write):
        write(1, b"torn down\\n")
torn = Torn()
atexit.register(lambda: print("exit function"))
if {uses_ray}:
    sys.modules["ray"] = sys
sys.argv = ["mixed-r1", "{verb}"]
cli.command()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.endswith(said)


@pytest.mark.parametrize("error", [NonFiniteLossError, ExplodingGradientError])
def test_an_update_that_must_not_be_applied_ends_with_one_line_and_code_1(
    error: type[DivergedError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(_: object) -> int:
        raise error(7, ("0-12", "0-15"), "gradient norm nan")

    monkeypatch.setattr(cli, "_train", diverge)

    code, _, err = run(capsys, "train")

    assert code == 1
    [line] = err.splitlines()
    assert line.startswith(
        "mixed-r1 train: step 7: gradient norm nan in groups 0-12, 0-15; the update was not applied."
    )
