// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/comm.h"

namespace turbomind {
namespace {

const tm_comm_api& comm_api(const Plugin& plugin) {
  check(plugin.comm() != nullptr, ErrorCode::kUnsupported, plugin.name(), " backend: has no collectives");
  return *plugin.comm();
}

}  // namespace

CommId Comm::unique_id(const Device& device) {
  CommId id{};
  const Plugin& plugin = device.plugin();
  plugin.check_status(comm_api(plugin).unique_id(device.handle(), id.data()), "comm_unique_id");
  return id;
}

Comm::Comm(const Device& device, const CommId& id, int32_t rank, int32_t size) : rank_(rank), size_(size) {
  check(size > 0 && rank >= 0 && rank < size, ErrorCode::kInvalidArgument, "comm rank: expected 0 to ", size - 1,
        ", found ", rank);
  const tm_comm_api& api = comm_api(device.plugin());
  tm_comm* comm = nullptr;
  device.plugin().check_status(api.init_rank(device.handle(), id.data(), rank, size, &comm), "comm_init_rank");
  handle_ = Handle<tm_comm>(device.context(), comm, api.free);
}

void Comm::all_reduce(Stream& stream, const Tensor& in, const Tensor& out, tm_reduce_op op) {
  check_status(api().all_reduce(handle(), stream.handle(), &in, &out, op), "all_reduce");
}

void Comm::all_gather(Stream& stream, const Tensor& in, const Tensor& out) {
  check_status(api().all_gather(handle(), stream.handle(), &in, &out), "all_gather");
}

void Comm::reduce_scatter(Stream& stream, const Tensor& in, const Tensor& out, tm_reduce_op op) {
  check_status(api().reduce_scatter(handle(), stream.handle(), &in, &out, op), "reduce_scatter");
}

void Comm::broadcast(Stream& stream, const Tensor& data, int32_t root) {
  check_status(api().broadcast(handle(), stream.handle(), &data, root), "broadcast");
}

void Comm::all_to_all(Stream& stream, const Tensor& in, const Tensor& out) {
  check_status(api().all_to_all(handle(), stream.handle(), &in, &out), "all_to_all");
}

void Comm::abort() { api().abort(handle()); }

}  // namespace turbomind
