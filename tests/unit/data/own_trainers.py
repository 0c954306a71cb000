"""Data of other trainers, small and true to their forms, each with what is to be read from it.

Held against their own documents and code: verl (examples/data_preprocess/geo3k.py), EasyR1 (verl/utils/dataset.py),
ms-swift (Customization/Custom-dataset), TRL (dataset_formats, grpo_vlm.py), LLaMA-Factory (data/README,
data/mllm_demo.json).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.data.own_questions import (
    COLOURS,
    NUMBER,
    Asked,
    OwnData,
    base64_of,
    cell,
    chosen,
    counted,
    lines,
    picture_files,
    table,
    write_parquet,
    written,
)

SYSTEM = "You are a helpful assistant."


def verl_parquet(folder: Path) -> OwnData:
    """What geo3k.py writes: train.parquet and test.parquet."""
    ask = " The final answer MUST BE put in \\boxed{}."
    rows = tuple(replace(row, question=row.question + ask, tasks=("math",)) for row in counted())
    raw = [
        {
            "data_source": "hiyouga/geometry3k",
            "prompt": [{"content": f"<image>{row.question}", "role": "user"}],
            "images": [cell(row.images[0], f"{number}.png")],
            "ability": "math",
            "reward_model": {"ground_truth": row.answer, "style": "rule"},
            "extra_info": {
                "answer": row.answer,
                "index": number,
                "question": f"<image>{row.question.removesuffix(ask)}",
                "split": "train",
            },
        }
        for number, row in enumerate(rows)
    ]
    train = write_parquet(folder / "train.parquet", table(raw, images="List"))
    test = write_parquet(folder / "test.parquet", table(raw[::-1], images="List"))
    mapping = {"question": "prompt", "answer": "reward_model.ground_truth", "images": "images", "task": "ability"}
    return OwnData(
        path=train, files=(train,), held_out=(test,), kind="parquet", raw=tuple(raw), rows=rows, mapping=mapping
    )


def easyr1_parquet(folder: Path) -> OwnData:
    """hiyouga/geometry3k in its first form: images, problem, answer."""
    rows = counted()
    raw = [
        {"images": [cell(r.images[0], "0.png")], "problem": f"<image>{r.question}", "answer": r.answer} for r in rows
    ]
    path = write_parquet(folder / "train.parquet", table(raw, images="List"))
    mapping = {"question": "problem", "answer": "answer", "images": "images", "task": NUMBER}
    return OwnData(path=path, files=(path,), kind="parquet", raw=tuple(raw), rows=rows, mapping=mapping)


def swift_messages(folder: Path) -> OwnData:
    """A GRPO set of ms-swift: messages, absolute paths, the solution in answer tags; the last row has two images."""
    rows = [replace(row, system=SYSTEM) for row in counted()]
    paths = [str((folder / path).absolute()) for path in picture_files(folder, rows)]
    rows[-1] = replace(
        rows[-1],
        question="How many squares are in \ufffc and \ufffc?",
        images=(rows[-1].images[0], rows[0].images[0]),
        answer="9",
    )
    raw = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"<image>{row.question}"},
            ],
            "images": [path],
            "solution": f"<answer> {row.answer} </answer>",
        }
        for row, path in zip(rows, paths, strict=True)
    ]
    raw[-1]["messages"] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "How many squares are in <image> and <image>?"},
    ]
    raw[-1]["images"] = [paths[-1], paths[0]]
    mapping = {"question": "messages", "answer": "solution", "images": "images", "task": NUMBER}
    return written(folder / "own.jsonl", lines(raw), "lines", raw, rows, mapping, answer_is="tagged")


def swift_grounding(folder: Path) -> OwnData:
    """A grounding set of ms-swift: `<ref-object>` is filled from `ref`; odd rows have shares of the image as boxes."""
    rows, raw = [], []
    for number, path in enumerate(picture_files(folder, chosen())):
        is_share = bool(number % 2)
        boxes = ((0.0625, 0.125, 0.25, 0.5), (0.5, 0.25, 0.75, 0.75)) if is_share else ((6.0, 8.0, 20.0, 22.0),)
        colour = COLOURS[(number + 1) % 3]
        row = Asked(
            question=f"Find the {colour} square in image {number}",
            images=chosen()[number].images,
            tasks=("iou",),
            boxes=boxes,
            box_frame="norm1" if is_share else "pixel",
            system=SYSTEM,
        )
        rows.append(row)
        objects = {"ref": [f"{colour} square"], "bbox": [list(box) for box in boxes]}
        raw.append(
            {
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"<image>Find the <ref-object> in image {number}"},
                    {"role": "assistant", "content": "<bbox>" * len(boxes)},
                ],
                "images": [path],
                "objects": {**objects, "bbox_type": "norm1"} if is_share else objects,
            }
        )
    return written(folder / "own.jsonl", lines(raw), "lines", raw, rows, {})


def trl_parts(folder: Path) -> OwnData:
    """A vision set of TRL: turns with parts, whose images stand in a column of lists."""
    rows = counted()
    raw = [
        {
            "prompt": [
                {"content": [{"text": None, "type": "image"}, {"text": row.question, "type": "text"}], "role": "user"}
            ],
            "images": [cell(row.images[0], "0.png")],
            "solution": row.answer,
        }
        for row in rows
    ]
    path = write_parquet(folder / "train.parquet", table(raw, images="List"))
    mapping = {"question": "prompt", "answer": "solution", "images": "images", "task": NUMBER}
    return OwnData(path=path, files=(path,), kind="parquet", raw=tuple(raw), rows=rows, mapping=mapping)


def trl_grpo(folder: Path) -> OwnData:
    """What grpo_vlm.py makes: texts as content, one image a row, and the columns that it started from."""
    rows = tuple(replace(row, system=SYSTEM) for row in counted())
    raw = [
        {
            "image": cell(row.images[0], "0.png"),
            "problem": row.question,
            "solution": f"<think>\nI count.\n</think>\n<answer>\n{row.answer}\n</answer>",
            "prompt": [{"content": SYSTEM, "role": "system"}, {"content": row.question, "role": "user"}],
        }
        for row in rows
    ]
    path = write_parquet(folder / "train.parquet", table(raw, image="Image"))
    mapping = {"question": "prompt", "answer": "solution", "images": "image", "task": NUMBER}
    return OwnData(
        path=path, files=(path,), kind="parquet", raw=tuple(raw), rows=rows, mapping=mapping, answer_is="tagged"
    )


def _described(folder: Path, **description: Any) -> None:
    """Write the dataset_info.json of LLaMA-Factory beside own.json."""
    text = json.dumps({"own": {"file_name": "own.json", **description}}, indent=2)
    (folder / "dataset_info.json").write_text(text, encoding="utf-8")


def factory_alpaca(folder: Path) -> OwnData:
    """An alpaca set of LLaMA-Factory: the prompt is `instruction` and `input`, on two lines where both are there."""
    ask = "Look at the sheet."
    rows = [replace(row, question=f"{ask}\n{row.question}") for row in counted()]
    paths = picture_files(folder, rows)
    raw = [
        {
            "instruction": f"<image>{ask}",
            "input": row.question.removeprefix(f"{ask}\n"),
            "output": row.answer,
            "images": [path],
        }
        for row, path in zip(rows, paths, strict=True)
    ]
    raw[-1] |= {"instruction": f"<image>{raw[-1]['input']}", "input": ""}
    rows[-1] = counted()[-1]
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    _described(folder, columns=columns)
    return written(folder / "own.json", json.dumps(raw, indent=2).encode(), "array", raw, rows, {})


def factory_sharegpt(folder: Path) -> OwnData:
    """A sharegpt set of LLaMA-Factory, with a column for the system turn."""
    rows = [replace(row, system=SYSTEM) for row in counted()]
    raw = [
        {
            "conversations": [
                {"from": "human", "value": f"<image>{row.question}"},
                {"from": "gpt", "value": row.answer},
            ],
            "system": SYSTEM,
            "images": [path],
        }
        for row, path in zip(rows, picture_files(folder, rows), strict=True)
    ]
    columns = {"messages": "conversations", "system": "system", "images": "images"}
    _described(folder, formatting="sharegpt", columns=columns)
    mapping = {"question": "conversations", "answer": "conversations.1.value", "images": "images", "task": NUMBER}
    return written(folder / "own.json", json.dumps(raw, indent=2).encode(), "array", raw, rows, mapping)


def llava(folder: Path) -> OwnData:
    """LLaVA's form, with the marker on a line of its own, before or behind the text."""
    rows = counted()
    raw = [
        {
            "id": f"{number:012d}",
            "image": path,
            "conversations": [
                {"from": "human", "value": f"<image>\n{row.question}" if number % 2 else f"{row.question}\n<image>"},
                {"from": "gpt", "value": row.answer},
            ],
        }
        for number, (row, path) in enumerate(zip(rows, picture_files(folder, rows), strict=True))
    ]
    rows = tuple(
        row if number % 2 else replace(row, question=f"{row.question}\n\ufffc") for number, row in enumerate(rows)
    )
    mapping = {"question": "conversations", "answer": "conversations.1.value", "images": "image", "task": NUMBER}
    return written(folder / "own.json", json.dumps(raw).encode(), "array", raw, rows, mapping)


def openai_messages(folder: Path) -> OwnData:
    """Messages of OpenAI: parts with data URLs; the assistant's turn is the reference."""
    rows = [replace(row, question=f"{row.question}\ufffc", system=SYSTEM) for row in counted()]
    raw = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": row.question.removesuffix("\ufffc")},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{base64_of(row.images[0])}", "detail": "low"},
                        },
                    ],
                },
                {"role": "assistant", "content": row.answer},
            ]
        }
        for row in rows
    ]
    mapping = {"question": "messages", "answer": "messages.2.content", "task": NUMBER}
    return written(folder / "own.jsonl", lines(raw), "lines", raw, rows, mapping)
