// SPDX-License-Identifier: Apache-2.0
//
// One element from one or two. Integers are computed in 64 bits and wrap; everything else in float32 (from double
// precision functions) and is rounded once, when it is stored.
#include <cmath>

#include "abi/ops.h"
#include "nnop/call.h"

namespace fakecann {
namespace {

aclnnStatus unary(const char* op, FakeIn self, aclTensor* out, uint64_t* size, aclOpExecutor** executor,
                  const std::function<float(float)>& function) {
  return plan(op, size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    call.check();
    call.run([x, y, function](const Bound& bound) {
      std::vector<float> values = bound.floats(x);
      for (float& value : values) value = function(value);
      bound.put(y, values);
    });
  });
}

// The shape that two shapes broadcast to.
Dims broadcast(const Call& call, const Dims& a, const Dims& b) {
  Dims dims(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t left = i < a.size() ? a[a.size() - 1 - i] : 1, right = i < b.size() ? b[b.size() - 1 - i] : 1;
    call.require(left == right || left == 1 || right == 1, "self and other broadcast");
    dims[dims.size() - 1 - i] = left == 1 ? right : left;
  }
  return dims;
}

struct Pair {
  std::function<float(float, float)> floats;
  std::function<int64_t(int64_t, int64_t)> integers;  // none: integers are computed as floats
  FakeScalar alpha = nullptr;                         // a further argument that some take
};

void run_pair(const Bound& bound, int a, int b, int y, const Pair& pair) {
  const Dims& dims = bound.view(y).dims;
  const bool is_float = is_floating(bound.view(a).dtype) || is_floating(bound.view(b).dtype);
  if (is_float || !pair.integers) {
    std::vector<float> left = bound.floats(a, dims);
    const std::vector<float> right = bound.floats(b, dims);
    for (size_t i = 0; i < left.size(); ++i) left[i] = pair.floats(left[i], right[i]);
    return bound.put(y, left);
  }
  std::vector<int64_t> left = bound.integers(a, dims);
  const std::vector<int64_t> right = bound.integers(b, dims);
  for (size_t i = 0; i < left.size(); ++i) left[i] = pair.integers(left[i], right[i]);
  bound.put(y, left);
}

aclnnStatus binary(const char* op, FakeIn self, FakeIn other, aclTensor* out, uint64_t* size, aclOpExecutor** executor,
                   const Pair& pair) {
  return plan(op, size, executor, [&](Call& call) {
    const int a = call.in("self", self), b = call.in("other", other), y = call.out("out", out);
    call.scalar("alpha", pair.alpha);
    call.check();
    const Dims dims = broadcast(call, call.view(a).dims, call.view(b).dims);
    call.require(call.view(y).dims == dims, "out has the shape that self and other broadcast to");
    call.run([=](const Bound& bound) { run_pair(bound, a, b, y, pair); });
  });
}

aclnnStatus with_scalar(const char* op, FakeIn self, FakeScalar other, aclTensor* out, uint64_t* size,
                        aclOpExecutor** executor, const Pair& pair) {
  return plan(op, size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    const aclScalar value = call.scalar("other", other);
    call.scalar("alpha", pair.alpha);
    call.check();
    call.run([=](const Bound& bound) {
      if (is_floating(bound.view(x).dtype) || is_floating(value.dtype) || !pair.integers) {
        std::vector<float> values = bound.floats(x);
        for (float& each : values) each = pair.floats(each, static_cast<float>(value.value));
        return bound.put(y, values);
      }
      std::vector<int64_t> values = bound.integers(x);
      for (int64_t& each : values) each = pair.integers(each, value.integer);
      bound.put(y, values);
    });
  });
}

int64_t wrap_add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
int64_t wrap_mul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

// a + sign * alpha * b.
Pair sum(FakeScalar alpha, int64_t sign) {
  const bool is_live = alpha != nullptr && serial_of(alpha) != 0;  // a dead one is refused later
  const auto factor = static_cast<float>(is_live ? alpha->value : 1.0) * static_cast<float>(sign);
  const int64_t whole = is_live ? alpha->integer * sign : sign;
  return {[factor](float a, float b) { return a + factor * b; },
          [whole](int64_t a, int64_t b) { return wrap_add(a, wrap_mul(whole, b)); }, alpha};
}

float maximum(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }
float minimum(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }
float logistic(float x) { return static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(x)))); }
float gelu(float x) { return static_cast<float>(0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)))); }
float gelu_tanh(float x) {
  const double wide = x;
  return static_cast<float>(0.5 * wide *
                            (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (wide + 0.044715 * wide * wide * wide))));
}

template <double (*function)(double)>
float narrow(float x) {
  return static_cast<float>(function(x));
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

#define FAKECANN_UNARY(name, expression)                                  \
  FAKECANN_OP(name, FakeIn self, aclTensor* out) {                        \
    return unary(#name, self, out, workspace_size, executor, expression); \
  }
FAKECANN_UNARY(Exp, narrow<std::exp>)
FAKECANN_UNARY(Log, narrow<std::log>)
FAKECANN_UNARY(Sin, narrow<std::sin>)
FAKECANN_UNARY(Cos, narrow<std::cos>)
FAKECANN_UNARY(Tanh, narrow<std::tanh>)
FAKECANN_UNARY(Sqrt, narrow<std::sqrt>)
FAKECANN_UNARY(Rsqrt, [](float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); })
FAKECANN_UNARY(Reciprocal, [](float x) { return 1.0f / x; })
FAKECANN_UNARY(Neg, [](float x) { return -x; })
FAKECANN_UNARY(Abs, [](float x) { return std::fabs(x); })
FAKECANN_UNARY(Floor, [](float x) { return std::floor(x); })
FAKECANN_UNARY(Round, [](float x) { return std::nearbyint(x); })
FAKECANN_UNARY(Sigmoid, logistic)
FAKECANN_UNARY(Silu, [](float x) { return x * logistic(x); })
// The older of the two operators knows the approximation only.
FAKECANN_UNARY(Gelu, gelu_tanh)
FAKECANN_UNARY(Relu, [](float x) { return x < 0 ? 0.0f : x; })
FAKECANN_UNARY(LogicalNot, [](float x) { return x == 0 ? 1.0f : 0.0f; })

FAKECANN_OP(GeluV2, FakeIn self, int64_t approximate, aclTensor* out) {
  return plan("GeluV2", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    const int64_t kind = call.attribute("approximate", approximate);
    call.check();
    call.run([=](const Bound& bound) {
      std::vector<float> values = bound.floats(x);
      for (float& value : values) value = kind == 0 ? gelu(value) : gelu_tanh(value);
      bound.put(y, values);
    });
  });
}

FAKECANN_OP(Clamp, FakeIn self, FakeScalar low, FakeScalar high, aclTensor* out) {
  return plan("Clamp", workspace_size, executor, [&](Call& call) {
    const int x = call.in("self", self), y = call.out("out", out);
    const bool has_low = low != nullptr, has_high = high != nullptr;
    const aclScalar from = call.scalar("low", low), to = call.scalar("high", high);
    call.check();
    call.require(has_low || has_high, "one of the two ends is given", kNullParameter);
    call.run([=](const Bound& bound) {
      if (is_floating(bound.view(x).dtype)) {
        std::vector<float> values = bound.floats(x);
        for (float& value : values) {
          if (has_low && value < from.value) value = static_cast<float>(from.value);
          if (has_high && value > to.value) value = static_cast<float>(to.value);
        }
        return bound.put(y, values);
      }
      std::vector<int64_t> values = bound.integers(x);
      for (int64_t& value : values) {
        if (has_low) value = std::max(value, from.integer);
        if (has_high) value = std::min(value, to.integer);
      }
      bound.put(y, values);
    });
  });
}

FAKECANN_OP(Add, FakeIn self, FakeIn other, FakeScalar alpha, aclTensor* out) {
  return binary("Add", self, other, out, workspace_size, executor, sum(alpha, 1));
}
FAKECANN_OP(InplaceAdd, aclTensor* self, FakeIn other, FakeScalar alpha) {
  return binary("InplaceAdd", self, other, self, workspace_size, executor, sum(alpha, 1));
}
FAKECANN_OP(Sub, FakeIn self, FakeIn other, FakeScalar alpha, aclTensor* out) {
  return binary("Sub", self, other, out, workspace_size, executor, sum(alpha, -1));
}
FAKECANN_OP(Adds, FakeIn self, FakeScalar other, FakeScalar alpha, aclTensor* out) {
  return with_scalar("Adds", self, other, out, workspace_size, executor, sum(alpha, 1));
}
FAKECANN_OP(Subs, FakeIn self, FakeScalar other, FakeScalar alpha, aclTensor* out) {
  return with_scalar("Subs", self, other, out, workspace_size, executor, sum(alpha, -1));
}

// floats, integers: what the element is, of a and b.
#define FAKECANN_PAIR(float_expression, integer_expression)                \
  Pair {                                                                   \
    [](float a, float b) -> float { return float_expression; },            \
        [](int64_t a, int64_t b) -> int64_t { return integer_expression; } \
  }
#define FAKECANN_BINARY(name, float_expression, integer_expression)     \
  FAKECANN_OP(name, FakeIn self, FakeIn other, aclTensor* out) {        \
    return binary(#name, self, other, out, workspace_size, executor,    \
                  FAKECANN_PAIR(float_expression, integer_expression)); \
  }
#define FAKECANN_SCALAR(name, float_expression, integer_expression)          \
  FAKECANN_OP(name, FakeIn self, FakeScalar other, aclTensor* out) {         \
    return with_scalar(#name, self, other, out, workspace_size, executor,    \
                       FAKECANN_PAIR(float_expression, integer_expression)); \
  }
#define FAKECANN_COMPARISON(name, comparison)                   \
  FAKECANN_BINARY(name##Tensor, a comparison b, a comparison b) \
  FAKECANN_SCALAR(name##Scalar, a comparison b, a comparison b)
FAKECANN_BINARY(Mul, a* b, wrap_mul(a, b))
FAKECANN_SCALAR(Muls, a* b, wrap_mul(a, b))
FAKECANN_BINARY(Maximum, maximum(a, b), std::max(a, b))
FAKECANN_BINARY(Minimum, minimum(a, b), std::min(a, b))
FAKECANN_BINARY(LogicalAnd, (a != 0) && (b != 0), (a != 0) && (b != 0))
FAKECANN_BINARY(LogicalOr, (a != 0) || (b != 0), (a != 0) || (b != 0))
FAKECANN_COMPARISON(Eq, ==)
FAKECANN_COMPARISON(Ne, !=)
FAKECANN_COMPARISON(Lt, <)
FAKECANN_COMPARISON(Le, <=)
FAKECANN_COMPARISON(Gt, >)
FAKECANN_COMPARISON(Ge, >=)

// The contract keeps floats out, so the float side is never asked.
#define FAKECANN_BITWISE(name, operation)                                                                      \
  FAKECANN_BINARY(name##Tensor, static_cast<float>(static_cast<int64_t>(a) operation static_cast<int64_t>(b)), \
                  a operation b)                                                                               \
  FAKECANN_SCALAR(name##Scalar, static_cast<float>(static_cast<int64_t>(a) operation static_cast<int64_t>(b)), \
                  a operation b)
FAKECANN_BITWISE(BitwiseAnd, &)
FAKECANN_BITWISE(BitwiseOr, |)
FAKECANN_BITWISE(BitwiseXor, ^)

FAKECANN_OP(Div, FakeIn self, FakeIn other, aclTensor* out) {
  return binary("Div", self, other, out, workspace_size, executor,
                {[](float a, float b) { return a / b; }, nullptr, nullptr});
}
FAKECANN_OP(Divs, FakeIn self, FakeScalar other, aclTensor* out) {
  return with_scalar("Divs", self, other, out, workspace_size, executor,
                     {[](float a, float b) { return a / b; }, nullptr, nullptr});
}
FAKECANN_OP(PowTensorScalar, FakeIn self, FakeScalar exponent, aclTensor* out) {
  return with_scalar(
      "PowTensorScalar", self, exponent, out, workspace_size, executor,
      {[](float a, float b) { return static_cast<float>(std::pow(static_cast<double>(a), b)); }, nullptr, nullptr});
}

FAKECANN_OP(SWhere, FakeIn condition, FakeIn self, FakeIn other, aclTensor* out) {
  return plan("SWhere", workspace_size, executor, [&](Call& call) {
    const int c = call.in("condition", condition), a = call.in("self", self), b = call.in("other", other);
    const int y = call.out("out", out);
    call.check();
    const Dims dims = broadcast(call, broadcast(call, call.view(a).dims, call.view(b).dims), call.view(c).dims);
    call.require(call.view(y).dims == dims, "out has the shape that the inputs broadcast to");
    call.run([=](const Bound& bound) {
      const std::vector<int64_t> chosen = bound.integers(c, dims);
      if (is_floating(bound.view(a).dtype) || is_floating(bound.view(b).dtype)) {
        std::vector<float> left = bound.floats(a, dims);
        const std::vector<float> right = bound.floats(b, dims);
        for (size_t i = 0; i < left.size(); ++i) left[i] = chosen[i] != 0 ? left[i] : right[i];
        return bound.put(y, left);
      }
      std::vector<int64_t> left = bound.integers(a, dims);
      const std::vector<int64_t> right = bound.integers(b, dims);
      for (size_t i = 0; i < left.size(); ++i) left[i] = chosen[i] != 0 ? left[i] : right[i];
      bound.put(y, left);
    });
  });
}

FAKECANN_OP(InplaceMaskedFillScalar, aclTensor* self, FakeIn mask, FakeScalar value) {
  return plan("InplaceMaskedFillScalar", workspace_size, executor, [&](Call& call) {
    const int y = call.out("self", self), m = call.in("mask", mask);
    const aclScalar fill = call.scalar("value", value);
    call.check();
    call.require(broadcast(call, call.view(y).dims, call.view(m).dims) == call.view(y).dims, "mask broadcasts to self");
    call.run([=](const Bound& bound) {
      const std::vector<int64_t> masked = bound.integers(m, bound.view(y).dims);
      if (is_floating(bound.view(y).dtype)) {
        std::vector<float> values = bound.floats(y);
        for (size_t i = 0; i < values.size(); ++i)
          values[i] = masked[i] != 0 ? static_cast<float>(fill.value) : values[i];
        return bound.put(y, values);
      }
      std::vector<int64_t> values = bound.integers(y);
      for (size_t i = 0; i < values.size(); ++i) values[i] = masked[i] != 0 ? fill.integer : values[i];
      bound.put(y, values);
    });
  });
}
