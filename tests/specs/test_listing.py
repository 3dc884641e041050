"""The table of families: complete, and the one in the docs is today's."""

from pathlib import Path

from transformer_lens.specs import ENCODERS, FAMILIES
from transformer_lens.specs.listing import markdown, names_of, rows
from transformer_lens.specs.names import official_names

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


def test_every_official_name_is_in_one_family():
    listed = [name for row in rows() for name in row.names]
    assert len(listed) == len(set(listed))
    assert set(official_names()) == set(listed)


def test_rows_are_found_by_any_word():
    assert [row.family for row in rows("Pythia-70m-deduped")] == ["GPT-NeoX and Pythia"]
    assert [row.family for row in rows("vicuna")] == ["Llama 1, 2, 3"]
    assert rows("no such thing") == []
    assert len(rows()) == len(FAMILIES) + len(ENCODERS) + 1


def test_what_a_row_says():
    (row,) = rows("gpt_oss")
    assert (row.norms, row.positions, row.mlp, row.saves) == ("RMS norm before", "rotary", "experts", True)
    assert row.no_effect == ("center_writing_weights", "fold_value_biases")
    assert names_of(FAMILIES[0])[0] == "demo"
    (row,) = rows("google-bert/bert-base-cased")
    assert (row.norms, row.positions, row.mlp, row.no_effect) == ("layer norm after", "learned", "plain", ())
    assert (row.notes, row.saves) == ("held by HookedEncoder", True)
    (row,) = rows("google-t5/t5-small")
    assert (row.norms, row.positions, row.mlp, row.saves) == ("RMS norm before", "relative", "plain or gated", True)


def test_model_types_are_told_apart():
    kinds = [(kind, spec.only_architectures) for spec in (*FAMILIES, *ENCODERS) for kind in spec.model_types]
    assert len(kinds) == len(set(kinds))


def test_the_table_in_the_docs_is_current():
    assert markdown() in DOCS.read_text(encoding="utf-8"), "write transformer_lens.specs.listing.markdown() into it"
