// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/device.h"

#include "turbomind/core/log.h"

namespace turbomind {
namespace {

const tm_graph_api& graph_api(const Plugin& plugin) {
  check(plugin.graph() != nullptr, ErrorCode::kUnsupported, plugin.name(), " backend: cannot capture steps");
  return *plugin.graph();
}

// Runs a create function of a table and owns what it made.
template <class T, class Create, class... Args>
Handle<T> create(const std::shared_ptr<const DeviceContext>& context, const char* call, Create create_fn,
                 typename Handle<T>::Free free, Args... args) {
  T* handle = nullptr;
  context->plugin.check_status(create_fn(args..., &handle), call);
  return Handle<T>(context, handle, free);
}

}  // namespace

DeviceContext::DeviceContext(const Plugin& plugin, int32_t index, const Config& config) : plugin(plugin) {
  const int32_t count = plugin.device_count();
  check(index >= 0 && index < count, ErrorCode::kInvalidArgument, "device index: expected 0 to ", count - 1, " (",
        plugin.name(), " has ", count, " devices), found ", index);
  const std::vector<tm_config_entry> entries = config.abi_entries();
  const tm_config view{entries.data(), entries.size()};
  plugin.check_status(plugin.device().context_create(index, &view, &handle), "context_create");
  props.struct_size = sizeof props;
  const tm_status status = plugin.device().props(handle, &props);
  try {
    plugin.check_status(status, "props");
    check(props.memory_alignment >= kMemoryAlignment, ErrorCode::kUnsupported, plugin.name(),
          " backend: memory_alignment: expected at least ", kMemoryAlignment, " bytes, found ", props.memory_alignment);
  } catch (...) {
    plugin.device().context_destroy(handle);
    throw;
  }
}

DeviceContext::~DeviceContext() { plugin.device().context_destroy(handle); }

Device::Device(const Plugin& plugin, int32_t index, const Config& config)
    : context_(std::make_shared<const DeviceContext>(plugin, index, config)) {}

MemoryInfo Device::memory_info() const {
  MemoryInfo info{};
  plugin().check_status(plugin().device().mem_info(handle(), &info.free_bytes, &info.total_bytes), "mem_info");
  return info;
}

void Device::set_thread() const { plugin().check_status(plugin().device().set_thread(handle()), "set_thread"); }

size_t Device::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  size_t bytes = 0;
  plugin().check_status(plugin().kv().pool_bytes(handle(), &spec, num_blocks, &bytes), "kv_pool_bytes");
  return bytes;
}

Graph::Graph(std::shared_ptr<const DeviceContext> context, tm_graph* graph)
    : handle_(context, graph, graph_api(context->plugin).free) {}

void Graph::launch(Stream& stream, std::span<tm_plan* const> plans) const {
  const Plugin& plugin = handle_.plugin();
  const auto num_plans = static_cast<int32_t>(plans.size());
  plugin.check_status(graph_api(plugin).launch(handle_.get(), stream.handle(), plans.data(), num_plans),
                      "graph_launch");
}

Stream::Stream(const Device& device)
    : handle_(create<tm_stream>(device.context(), "stream_create", device.plugin().device().stream_create,
                                device.plugin().device().stream_destroy, device.handle())) {}

void Stream::copy(void* dst, const void* src, size_t bytes, tm_copy_kind kind) {
  if (bytes == 0) return;
  plugin().check_status(plugin().device().copy_async(handle(), dst, src, bytes, kind), "copy_async");
}

void Stream::memset(void* dst, int value, size_t bytes) {
  if (bytes == 0) return;
  plugin().check_status(plugin().device().memset_async(handle(), dst, value, bytes), "memset_async");
}

void Stream::synchronize() {
  plugin().check_status(plugin().device().stream_synchronize(handle()), "stream_synchronize");
}

void Stream::settle() {
  try {
    synchronize();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kDeviceLost) throw;
    log(LogLevel::kWarning, "after a failure: ", error.what());
  }
}

void Stream::capture_begin() {
  plugin().check_status(graph_api(plugin()).capture_begin(handle()), "capture_begin");
  capturing_ = true;
}

Graph Stream::capture_end() {
  tm_graph* graph = nullptr;
  capturing_ = false;
  plugin().check_status(graph_api(plugin()).capture_end(handle(), &graph), "capture_end");
  has_captured_ = true;
  return Graph(handle_.context(), graph);
}

Event::Event(const Device& device)
    : handle_(create<tm_event>(device.context(), "event_create", device.plugin().device().event_create,
                               device.plugin().device().event_destroy, device.handle())) {}

void Event::record(Stream& stream) {
  handle_.plugin().check_status(handle_.plugin().device().event_record(handle_.get(), stream.handle()), "event_record");
}

void Event::wait(Stream& stream) {
  handle_.plugin().check_status(handle_.plugin().device().event_wait(handle_.get(), stream.handle()), "event_wait");
}

void Event::synchronize() {
  handle_.plugin().check_status(handle_.plugin().device().event_synchronize(handle_.get()), "event_synchronize");
}

bool Event::reached() {
  const tm_status status = handle_.plugin().device().event_query(handle_.get());
  if (status == TM_NOT_READY) return false;
  handle_.plugin().check_status(status, "event_query");
  return true;
}

Buffer::Buffer(const Device& device, size_t bytes, tm_memory_kind kind)
    : context_(device.context()), bytes_(bytes), kind_(kind) {
  if (bytes == 0) return;
  device.plugin().check_status(device.plugin().device().alloc(device.handle(), kind, bytes, &data_), "alloc");
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(kind_, other.kind_);
  return *this;
}

Buffer::~Buffer() {
  if (data_) context_->plugin.device().free(context_->handle, kind_, data_);
}

Plan::Plan(const Device& device, tm_plan_limits limits) {
  limits.struct_size = sizeof limits;
  handle_ = create<tm_plan>(device.context(), "plan_create", device.plugin().plan().create, device.plugin().plan().free,
                            device.handle(), &limits);
}

void Plan::update(Stream& stream, tm_step_meta meta) {
  meta.struct_size = sizeof meta;
  handle_.plugin().check_status(handle_.plugin().plan().update(handle(), stream.handle(), &meta), "plan_update");
}

tm_weight_info PackedWeight::query(const Device& device, tm_weight_desc desc) {
  desc.struct_size = sizeof desc;
  tm_weight_info info{.struct_size = sizeof(tm_weight_info)};
  device.plugin().check_status(device.plugin().weight().query(device.handle(), &desc, &info), "weight_query");
  return info;
}

PackedWeight::PackedWeight(const Device& device, Stream& stream, tm_weight_desc desc,
                           std::shared_ptr<const void> keep_alive)
    : format_(desc.format), rows_(desc.rows), cols_(desc.cols), num_experts_(desc.num_experts) {
  const tm_weight_info info = query(device, desc);
  check(info.supported != 0, ErrorCode::kUnsupported, device.plugin().name(), " backend: weight format ",
        weight_format_name(desc.format), " [", desc.rows, ", ", desc.cols, "]: ", info.reason);
  buffer_ = Buffer(device, info.packed_bytes);
  desc.struct_size = sizeof desc;
  handle_ = create<tm_weight>(device.context(), "weight_pack", device.plugin().weight().pack,
                              device.plugin().weight().free, stream.handle(), &desc, buffer_.data());
  if (info.borrows_source) source_ = std::move(keep_alive);
}

}  // namespace turbomind
