// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/engine.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "config.h"
#include "media.h"
#include "weights.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

void load_weight(Engine& engine, const std::string& name, const std::string& format, const std::vector<int64_t>& shape,
                 const py::buffer& data) {
  const WeightSource source = weight_source(name, format, shape, data);
  const py::gil_scoped_release release;
  engine.load_weight(source);
}

py::dict to_dict(const MemoryPlan& plan) {
  py::list lines;
  for (const MemoryPlan::Line& line : plan.lines) {
    lines.append(py::dict("name"_a = line.name, "bytes"_a = line.bytes, "detail"_a = line.detail));
  }
  return py::dict("lines"_a = lines, "on_host"_a = plan.on_host, "device_free_bytes"_a = plan.device_free_bytes,
                  "num_kv_blocks"_a = plan.num_kv_blocks, "block_size"_a = plan.block_size,
                  "kv_capacity"_a = plan.kv_capacity, "max_sequence_len"_a = plan.max_sequence_len,
                  "text"_a = plan.to_string());
}

// Pairs of edge and count; the last edge is infinity.
template <class Histogram>
py::list to_list(const Histogram& histogram) {
  py::list out;
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    const bool last = i == Histogram::kEdges.size();
    const double edge = last ? std::numeric_limits<double>::infinity() : static_cast<double>(Histogram::kEdges[i]);
    out.append(py::make_tuple(edge, histogram.counts()[i]));
  }
  return out;
}

py::dict to_dict(const EngineStats& stats) {
  py::dict out;
#define TM_STAT(name) out[#name] = stats.name
  TM_STAT(running);
  TM_STAT(waiting);
  TM_STAT(kv_blocks_total);
  TM_STAT(kv_blocks_used);
  TM_STAT(kv_blocks_cached);
  TM_STAT(requests_finished);
  TM_STAT(requests_failed);
  TM_STAT(requests_cancelled);
  TM_STAT(prompt_tokens);
  TM_STAT(cached_tokens);
  TM_STAT(generated_tokens);
  TM_STAT(computed_tokens);
  TM_STAT(preemptions);
  TM_STAT(media_encoded);
  TM_STAT(media_tokens_cached);
  TM_STAT(steps);
  TM_STAT(failed_steps);
  TM_STAT(graph_replays);
  TM_STAT(device_recoveries);
  TM_STAT(schedule_seconds);
  TM_STAT(execute_seconds);
  TM_STAT(wait_seconds);
  TM_STAT(output_seconds);
  TM_STAT(guide_seconds);
#undef TM_STAT
  out["step_sizes"] = to_list(stats.step_sizes);
  const BlockAges& ages = stats.block_ages;
  out["block_ages"] = py::dict("lifetime"_a = py::make_tuple(to_list(ages.lifetime), ages.lifetime.sum()),
                               "idle"_a = py::make_tuple(to_list(ages.idle), ages.idle.sum()),
                               "reuse"_a = py::make_tuple(to_list(ages.reuse), ages.reuse.sum()));
  return out;
}

MemoryPlan start(Engine& engine) {
  const py::gil_scoped_release release;
  return engine.start();
}

EngineStats stats(const Engine& engine) {
  const py::gil_scoped_release release;
  return engine.stats();
}

}  // namespace

void bind_engine(py::module_& module) {
  // The last reference may go while the engine's thread waits for nothing but this: the GIL must not be held then.
  struct DeleteWithoutGil {
    void operator()(Engine* engine) const {
      const py::gil_scoped_release release;
      delete engine;
    }
  };
  py::class_<Engine, std::unique_ptr<Engine, DeleteWithoutGil>>(module, "Engine")
      .def(py::init([](const py::object& model, const EngineOptions& options, const py::object& vision) {
             DecoderConfig config = decoder_config(model);
             std::optional<EncoderConfig> encoder = encoder_config(vision);
             const py::gil_scoped_release release;
             return std::unique_ptr<Engine, DeleteWithoutGil>(
                 new Engine(std::move(config), options, std::move(encoder)));
           }),
           "model"_a, "options"_a, "vision"_a = py::none())
      .def("load_weight", &load_weight, "name"_a, "format"_a, "shape"_a, "data"_a)
      .def("start", [](Engine& self) { return to_dict(start(self)); })
      .def(
          "submit",
          [](Engine& self, std::vector<int32_t> prompt, SamplingParams params, const py::object& source) {
            MediaInput media = media_input(source);
            const py::gil_scoped_release release;
            return self.submit(std::move(prompt), std::move(params), std::move(media));
          },
          "prompt_token_ids"_a, "params"_a, "media"_a = py::none())
      .def("cancel", &Engine::cancel, "request_id"_a, ReleaseGil())
      .def(
          "poll", [](Engine& self, int64_t timeout_ms) { return self.poll(std::chrono::milliseconds(timeout_ms)); },
          "timeout_ms"_a, ReleaseGil())
      .def("event_fd", &Engine::event_fd)
      .def_property_readonly("vocab_size", &Engine::vocab_size)
      .def("stats", [](const Engine& self) { return to_dict(stats(self)); })
      .def(
          "stop",
          [](Engine& self, bool drain) { self.stop(drain ? Engine::StopMode::kDrain : Engine::StopMode::kCancel); },
          "drain"_a = false, ReleaseGil());
}

}  // namespace turbomind::bindings
