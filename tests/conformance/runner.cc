// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>

#include "suite.h"

namespace turbomind::conformance {
namespace {

struct Failure {
  std::string message;
};

void require(const std::string& wrong, const char* phase) {
  if (!wrong.empty()) throw Failure{std::string(phase) + ": " + wrong};
}

class Runner {
 public:
  Runner(const Session& session, Case& test) : session_(session), stream_(session.stream), case_(test) {}

  void run() {
    prepare_values();
    run_once([this] { case_.issue(all_rows()); });
    check_results("run");
    repeat();
    if (session_.deterministic() && case_.independent_rows > 0) split_rows();
    if (session_.device.can_capture() && case_.capturable) replay();
  }

 private:
  RowRange all_rows() const { return {0, case_.independent_rows}; }

  void prepare_values() {
    if (case_.fill) {
      case_.fill();
    } else {
      for (TestTensor& tensor : case_.tensors()) {
        if (tensor.role() != Role::kOutput && is_float(tensor.dtype())) tensor.fill_normal(case_.random);
      }
    }
    for (TestTensor& tensor : case_.tensors()) tensor.expected.clear();
    if (case_.reference) case_.reference();
  }

  void send(bool for_graph = false) {
    case_.reset_scratch();
    for (TestTensor& tensor : case_.tensors()) tensor.upload(stream_);
    for (TestPlan& plan : case_.plans()) plan.update(stream_, for_graph && plan.captured);
    if (case_.setup) case_.setup();
  }

  void receive() {
    for (TestTensor& tensor : case_.tensors()) tensor.download(stream_);
    stream_.synchronize();
  }

  void run_once(const std::function<void()>& issue) {
    send();
    issue();
    receive();
  }

  void check_guards(const char* phase) {
    for (const TestTensor& tensor : case_.tensors()) require(tensor.changed_bytes(), phase);
    require(case_.changed_guards(), phase);
  }

  void check_results(const char* phase) {
    check_guards(phase);
    if (case_.verify) return require(case_.verify(), phase);
    for (const TestTensor& tensor : case_.tensors()) {
      if (tensor.role() == Role::kInput) continue;
      const Tolerance bound = case_.tolerance ? *case_.tolerance : tolerance(case_.arithmetic, tensor.dtype());
      const std::string wrong = compare(tensor.results(), tensor.expected, bound);
      if (!wrong.empty()) throw Failure{std::string(phase) + ": " + tensor.name() + ": " + wrong};
    }
  }

  std::vector<std::vector<uint8_t>> images() {
    std::vector<std::vector<uint8_t>> images;
    for (const TestTensor& tensor : case_.tensors()) images.push_back(tensor.result_image());
    return images;
  }

  void repeat() {
    const auto first = images();
    run_once([this] { case_.issue(all_rows()); });
    if (images() != first) throw Failure{"second run: other bits than the first"};
  }

  // Each tested row alone must give the bits it had among the others.
  void split_rows() {
    const int64_t rows = case_.independent_rows;
    std::vector<std::vector<uint8_t>> together;
    const auto outputs = [&](const std::function<void(const TestTensor&)>& fn) {
      for (const TestTensor& tensor : case_.tensors()) {
        if (tensor.role() != Role::kInput && tensor.rows() == rows) fn(tensor);
      }
    };
    outputs([&](const TestTensor& tensor) { together.push_back(tensor.result_rows(0, rows)); });
    for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
      run_once([&] { case_.issue({row, 1}); });
      check_guards("one row alone");
      size_t index = 0;
      outputs([&](const TestTensor& tensor) {
        const std::vector<uint8_t> alone = tensor.result_rows(row, 1);
        const std::vector<uint8_t>& all = together[index++];
        const auto begin = all.begin() + row * static_cast<std::ptrdiff_t>(alone.size());
        if (!std::equal(alone.begin(), alone.end(), begin)) {
          throw Failure{tensor.name() + ": row " + std::to_string(row) + " alone has other bits than in the batch"};
        }
      });
    }
  }

  // Captured with one set of inputs, replayed with another.
  void replay() {
    send(true);
    stream_.synchronize();
    stream_.capture_begin();
    try {
      case_.issue(all_rows());
    } catch (...) {
      stream_.capture_end();
      throw;
    }
    const Graph graph = stream_.capture_end();
    prepare_values();
    send(true);
    std::vector<tm_plan*> plans;
    for (TestPlan& plan : case_.plans()) {
      if (plan.captured) plans.push_back(plan.plan.handle());
    }
    graph.launch(stream_, plans);
    receive();
    check_results("replay with other inputs");
  }

  const Session& session_;
  Stream& stream_;
  Case& case_;
};

uint64_t seed_of(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a: the same inputs on every machine
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

}  // namespace

std::vector<DType> Session::activation_dtypes() const {
  std::vector<DType> dtypes;
  for (const DType dtype : {TM_F32, TM_BF16, TM_F16}) {
    if (dtype_in(dtype, device.props().activation_dtypes)) dtypes.push_back(dtype);
  }
  return dtypes;
}

std::vector<DType> Session::kv_dtypes() const {
  std::vector<DType> dtypes;
  for (const DType dtype : {TM_F32, TM_BF16, TM_F16, TM_I8}) {
    if (dtype_in(dtype, device.props().kv_dtypes)) dtypes.push_back(dtype);
  }
  return dtypes;
}

std::string verify_pair(const TestTensor& fused, const TestTensor& composed, const Tolerance& bound) {
  const reference::Values results = fused.results();
  std::string wrong = compare(results, fused.expected, bound);
  if (!wrong.empty()) return fused.name() + ": " + wrong;
  wrong = compare(results, composed.results(), bound);
  return wrong.empty() ? wrong : fused.name() + " against its composition: " + wrong;
}

Result run_entry(const Entry& entry, const Session& session) {
  try {
    if (entry.check) {
      const std::string wrong = entry.check(session);
      return {wrong.empty() ? Outcome::kPassed : Outcome::kFailed, wrong};
    }
    Case test(session.device, session.stream, seed_of(entry.name));
    entry.build(test);
    Runner(session, test).run();
    return {Outcome::kPassed, ""};
  } catch (const NotOffered& none) {
    return {Outcome::kNotOffered, none.reason};
  } catch (const Failure& failure) {
    return {Outcome::kFailed, failure.message};
  } catch (const std::exception& error) {
    return {Outcome::kFailed, error.what()};
  }
}

}  // namespace turbomind::conformance
