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
      return "RequestCancelledError";
    case ErrorCode::kDeadlineExceeded:
      return "RequestTimeoutError";
    case ErrorCode::kInternal:
      break;
  }
  return "EngineError";
}

py::object python_type(ErrorCode code) { return py::module_::import("manymind.errors").attr(python_class(code)); }

}  // namespace

py::object make_python_error(ErrorCode code, const std::string& message) { return python_type(code)(message); }

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    if (!pointer) return;
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      py::set_error(python_type(error.code()), error.what());
    }
  });
}

}  // namespace turbomind::bindings
