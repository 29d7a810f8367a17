// SPDX-License-Identifier: Apache-2.0
//
// Elementary functions of a Vec, accurate to a few units in the last place of float32. exp and tanh follow the
// polynomials of the Cephes library (S. Moshier, expf.c and tanhf.c); erf uses a polynomial below 1 and 1 -
// exp(polynomial) above, fitted in double precision to erf and log(erfc).
#pragma once

#include "kernels/simd.h"
#include "turbomind/abi/tm_backend.h"

namespace turbomind::cpu::TM_ISA_NAMESPACE {

// coefficients[0] + coefficients[1] * x + ...
template <int N>
TM_INLINE Vec polynomial(Vec x, const float (&coefficients)[N]) {
  Vec result = set(coefficients[N - 1]);
  for (int i = N - 2; i >= 0; --i) result = fma(result, x, set(coefficients[i]));
  return result;
}

// 0 below -104, infinity above 88.73; NaN stays NaN.
TM_INLINE Vec exp(Vec x) {
  constexpr float kCoefficients[] = {5.0000001201e-1f, 1.6666665459e-1f, 4.1665795894e-2f,
                                     8.3334519073e-3f, 1.3981999507e-3f, 1.9875691500e-4f};
  const Vec bounded = max(set(-105.0f), min(set(89.0f), x));
  const Vec n = round(bounded * set(1.44269504088896341f));
  Vec r = fma(n, set(-0.693359375f), bounded);
  r = fma(n, set(2.12194440e-4f), r);
  const Vec e = fma(polynomial(r, kCoefficients), r * r, r) + set(1.0f);
  return select(equal(x, x), scale_by_power(e, n), x);
}

TM_INLINE Vec tanh(Vec x) {
  constexpr float kCoefficients[] = {-3.33332819422e-1f, 1.33314422036e-1f, -5.37397155531e-2f, 2.06390887954e-2f,
                                     -5.70498872745e-3f};
  const Vec magnitude = abs(x);
  const Vec square = x * x;
  const Vec near_zero = fma(polynomial(square, kCoefficients) * square, x, x);
  const Vec far = set(1.0f) - set(2.0f) / (exp(magnitude + magnitude) + set(1.0f));
  const Vec signed_far = select(less(x, zero()), -far, far);
  return select(less(magnitude, set(0.625f)), near_zero, signed_far);
}

TM_INLINE Vec erf(Vec x) {
  constexpr float kBelowOne[] = {1.12837911f,    -0.37612626f,     0.112835974f,   -0.0268543288f,
                                 0.00518931216f, -0.000801885501f, 7.88249745e-05f};
  constexpr float kLogErfc[] = {-0.00144115323f, -1.12283683f,    -0.644832015f,  -0.0976378694f,
                                0.0193865746f,   -0.00237676967f, 0.000132425412f};
  const Vec magnitude = abs(x);
  const Vec near_zero = polynomial(x * x, kBelowOne) * x;
  const Vec far = set(1.0f) - exp(polynomial(min(magnitude, set(4.0f)), kLogErfc));
  const Vec signed_far = select(less(x, zero()), -far, far);
  return select(less(magnitude, set(1.0f)), near_zero, signed_far);
}

TM_INLINE Vec silu(Vec x) { return x / (set(1.0f) + exp(-x)); }

TM_INLINE Vec quick_gelu(Vec x) { return x / (set(1.0f) + exp(x * set(-1.702f))); }

TM_INLINE Vec gelu_tanh(Vec x) {
  const Vec inner = set(0.7978845608028654f) * fma(set(0.044715f) * x * x, x, x);
  return set(0.5f) * x * (set(1.0f) + tanh(inner));
}

TM_INLINE Vec gelu_erf(Vec x) { return set(0.5f) * x * (set(1.0f) + erf(x * set(0.70710678118654752f))); }

TM_INLINE Vec relu(Vec x) { return max(x, zero()); }

template <tm_activation_kind kKind>
TM_INLINE Vec activate(Vec x) {
  if constexpr (kKind == TM_ACTIVATION_SILU) return silu(x);
  if constexpr (kKind == TM_ACTIVATION_GELU_TANH) return gelu_tanh(x);
  if constexpr (kKind == TM_ACTIVATION_GELU_ERF) return gelu_erf(x);
  if constexpr (kKind == TM_ACTIVATION_QUICK_GELU) return quick_gelu(x);
  if constexpr (kKind == TM_ACTIVATION_RELU) return relu(x);
  return x;
}

template <tm_activation_kind kKind>
struct ActivationTag {
  static constexpr tm_activation_kind value = kKind;
};

// Calls fn(ActivationTag<kind>{}): chooses the activation once, outside the loop over elements.
template <class Fn>
TM_INLINE void with_activation(tm_activation_kind kind, Fn&& fn) {
  switch (kind) {
    case TM_ACTIVATION_NONE:
      return fn(ActivationTag<TM_ACTIVATION_NONE>{});
    case TM_ACTIVATION_SILU:
      return fn(ActivationTag<TM_ACTIVATION_SILU>{});
    case TM_ACTIVATION_GELU_TANH:
      return fn(ActivationTag<TM_ACTIVATION_GELU_TANH>{});
    case TM_ACTIVATION_GELU_ERF:
      return fn(ActivationTag<TM_ACTIVATION_GELU_ERF>{});
    case TM_ACTIVATION_QUICK_GELU:
      return fn(ActivationTag<TM_ACTIVATION_QUICK_GELU>{});
    case TM_ACTIVATION_RELU:
      return fn(ActivationTag<TM_ACTIVATION_RELU>{});
    default:  // refused where the op was called
      return;
  }
}

}  // namespace turbomind::cpu::TM_ISA_NAMESPACE
