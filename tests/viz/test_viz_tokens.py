import pytest

from transformer_lens.viz import visible_token


@pytest.mark.parametrize(
    ("token", "label"),
    [
        (" the", "·the"),
        ("the ", "the·"),
        ("   ", "···"),
        ("a b", "a b"),
        ("\n\n", "↵↵"),
        ("\t x", "⇥ x"),
        ("\r\n", "␍↵"),
        ("", "(empty)"),
        ("\u200b", "\\u200b"),
        ("\u202e", "\\u202e"),
        ("\x00", "\\x00"),
        ("\u00a0", "\\xa0"),
        ("日本", "日本"),
        ("<script>", "<script>"),
    ],
)
def test_each_token_can_be_seen(token, label):
    assert visible_token(token) == label
