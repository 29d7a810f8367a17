// SPDX-License-Identifier: Apache-2.0
#include <exception>

#include "bindings.h"
#include "turbomind/core/error.h"

namespace py = pybind11;

namespace turbomind::bindings {
namespace {

const char* python_class(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "InvalidParameterError";
    case ErrorCode::kUnsupported:
    case ErrorCode::kDevice:
    case ErrorCode::kDeviceLost:
      return "BackendError";
    case ErrorCode::kOutOfMemory:
      return "OutOfMemoryError";
    case ErrorCode::kPromptTooLong:
      return "PromptTooLongError";
    case ErrorCode::kQueueFull:
      return "QueueFullError";
    case ErrorCode::kCancelled:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kInternal:
      break;
  }
  return "EngineError";
}

void raise_python_error(const Error& error) {
  const py::object type = py::module_::import("manymind.errors").attr(python_class(error.code()));
  py::set_error(type, error.what());
}

}  // namespace

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    if (!pointer) return;
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      raise_python_error(error);
    }
  });
}

}  // namespace turbomind::bindings
