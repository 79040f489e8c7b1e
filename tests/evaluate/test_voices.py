"""A voice's digest names all that an answer depends on beside the question, and nothing that it does not."""

from pathlib import Path
from typing import Any

from ecellm.config.schema import Run
from ecellm.evaluate.voices import digest_of, folder_of, log_folder, model_digest
from tests.evaluate.test_stage import changed


def part(run: Run, section: str, **settings: Any) -> Run:
    return run.model_copy(update={section: getattr(run, section).model_copy(update=settings)})


def test_another_engine_other_numbers_and_other_weights_are_another_voice(run: Run) -> None:
    plain = digest_of("tuned", run)
    others = [
        digest_of("tuned", changed(run, engine="vllm")), digest_of("tuned", part(run, "model", dtype="bfloat16")),
        digest_of("tuned", part(run, "cluster", gpus_per_worker=1)), digest_of("untuned", run),
    ]  # fmt: skip
    assert len({plain, *others}) == 5
    same = [
        digest_of("tuned", run.model_copy(update={"seed": 9})), digest_of("tuned", part(run, "model", dtype="float32")),
        digest_of("tuned", changed(run, workers=3, batch_rows=7, batch_tokens=700)),
    ]  # fmt: skip
    assert set(same) == {plain}
    weights = Path(run.out) / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert digest_of("tuned", run) != plain


def test_every_file_that_decides_an_answer_is_in_the_digest_and_no_other(run: Run) -> None:
    folder = Path(folder_of("tuned", run))
    before = model_digest(str(folder))
    (folder / "README.md").write_text("about it")
    assert model_digest(str(folder)) == before
    found = {before}
    for name in ("pytorch_model.bin", "modeling_own.py", "chat_template.jinja", "added.json", "spiece.model"):
        (folder / name).write_text("x")
        found.add(model_digest(str(folder)))
    assert len(found) == 6


def test_an_endpoint_is_named_by_its_address_and_model_and_never_by_its_key(
    run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    def named(**settings: Any) -> Run:
        model = {"name": "gpt", "model": settings.pop("model", "gpt-4"), "engine": "openai", "endpoint": settings}
        return changed(run, models=[model])

    plain = digest_of("gpt", named(url="https://one/v1"))
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert digest_of("gpt", named(url="https://one/v1", concurrency=3, budget_usd=2.0)) == plain
    others = {
        digest_of("gpt", named(url="https://two/v1")), digest_of("gpt", named(url="https://one/v1", model="gpt-5")),
        digest_of("gpt", named(url="https://one/v1", api="completions")),
    }  # fmt: skip
    assert len({plain, *others}) == 4


def test_where_runs_share_answers_the_content_is_part_of_the_place(run: Run) -> None:
    from ecellm.evaluate.voices import Voice

    one, two = (Voice(name="tuned", digest=letter * 64, separator="", engine="transformers") for letter in "ab")
    assert log_folder(one, run) == log_folder(two, run) == "answers/tuned"
    shared = changed(run, answers="somewhere")
    assert log_folder(one, shared) != log_folder(two, shared)
