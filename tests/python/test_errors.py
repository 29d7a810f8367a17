# SPDX-License-Identifier: Apache-2.0
"""The typed errors themselves."""

from __future__ import annotations

import pickle

import pytest

from manymind import errors
from manymind.errors import CheckpointError, InvalidParameterError, ManymindError

ALL = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("error", ALL)
def test_all_derive_from_one_base(error: type[Exception]) -> None:
    assert issubclass(error, ManymindError)


def test_invalid_parameters_are_value_errors_too() -> None:
    assert issubclass(InvalidParameterError, ValueError)


def test_checkpoint_error_names_everything() -> None:
    error = CheckpointError("field", "this", "that", "/a/file")
    assert str(error) == "/a/file: field: expected this, found that"
    assert str(CheckpointError("field", "this", "that").located("x")) == (
        "x: field: expected this, found that"
    )
    assert error.located("elsewhere") is error
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_messages_are_bounded() -> None:
    assert len(str(CheckpointError("field", "this", "x" * 10**6))) < 400
