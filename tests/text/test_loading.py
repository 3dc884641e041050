import socket
from pathlib import Path

import pytest
import transformers

from transformer_lens.text import TextCodec
from transformer_lens.text.loading import load_tokenizer

from . import offline_tokenizers as offline


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.mark.parametrize("name", offline.ALL)
def test_folder_is_read_without_the_network(name, tmp_path, no_network):
    tokenizer = offline.ALL[name]()
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "the cat sat on a mat"
    assert TextCodec(loaded).to_tokens(text).tolist() == TextCodec(tokenizer).to_tokens(text).tolist()
    assert load_tokenizer(str(tmp_path), padding_side="left").padding_side == "left"


def test_folder_without_a_tokenizer_says_what_is_there(tmp_path, no_network):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(OSError, match=r"which holds: weights.bin\. Save one there with"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("path", ["./nowhere", "~/nowhere-at-all", "/nowhere/at/all"])
def test_path_that_does_not_exist_is_not_asked_of_the_hub(path, no_network):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load_tokenizer(path)


def test_missing_path_object_is_not_asked_of_the_hub(no_network):
    with pytest.raises(FileNotFoundError, match="There is no folder gpt2"):
        load_tokenizer(Path("gpt2"))


def test_home_folder_is_found(tmp_path, monkeypatch, no_network):
    offline.gpt2_like().save_pretrained(tmp_path / "saved")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_tokenizer("~/saved").eos_token == "<|endoftext|>"


@pytest.fixture
def calls(monkeypatch):
    made = []

    def record(name, **kwargs):
        made.append((name, kwargs))
        return offline.gpt2_like()

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", record)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return made


def test_folder_is_asked_for_local_files_only(tmp_path, calls):
    load_tokenizer(tmp_path)
    assert calls == [(str(tmp_path), {"local_files_only": True, "trust_remote_code": False})]


def test_name_goes_to_the_hub_with_the_users_token(calls):
    load_tokenizer("org/model", revision="v1")
    load_tokenizer("org/model", token="other", trust_remote_code=True)
    assert calls == [
        ("org/model", {"revision": "v1", "token": "secret", "trust_remote_code": False}),
        ("org/model", {"token": "other", "trust_remote_code": True}),
    ]
