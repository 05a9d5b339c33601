#pragma once

#include <cstdint>
#include <cstring>

// Vector code for the CPU at hand. A kernel is written once, as a DDPO_SIMD_INLINE function `Name`
// over FloatVector; DDPO_SIMD_DISPATCH(Name, (parameters), (arguments)) compiles it for AVX-512,
// for AVX2 and for the baseline, and defines DispatchName, which calls the widest that the machine
// has.
#define DDPO_SIMD_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define DDPO_SIMD_DISPATCH(name, parameters, arguments)                               \
  __attribute__((target("avx512f,avx512vl,avx2,fma"))) void name##Avx512 parameters { \
    name arguments;                                                                   \
  }                                                                                   \
  __attribute__((target("avx2,fma"))) void name##Avx2 parameters { name arguments; }  \
  void name##Baseline parameters { name arguments; }                                  \
  void Dispatch##name parameters {                                                    \
    static const auto kernel = __builtin_cpu_supports("avx512vl") ? name##Avx512      \
                               : __builtin_cpu_supports("fma")    ? name##Avx2        \
                                                                  : name##Baseline;      \
    kernel arguments;                                                                 \
  }
#else
#define DDPO_SIMD_DISPATCH(name, parameters, arguments) \
  void Dispatch##name parameters { name arguments; }
#endif

namespace ddpo {

inline constexpr int64_t kLanes = 16;
// GCC's and Clang's portable vectors: split over narrower registers where the machine has no
// 512-bit ones.
using FloatVector = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntVector = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

// `count` values, the other lanes zero. Vectors are passed by reference because passing them by
// value differs between instruction sets.
DDPO_SIMD_INLINE void Load(const float* from, FloatVector& to, int64_t count = kLanes) {
  if (count == kLanes) {
    std::memcpy(&to, from, sizeof(FloatVector));
  } else {
    to = FloatVector{};
    std::memcpy(&to, from, count * sizeof(float));
  }
}

DDPO_SIMD_INLINE void Store(const FloatVector& from, float* to, int64_t count = kLanes) {
  if (count == kLanes) {
    std::memcpy(to, &from, sizeof(FloatVector));
  } else {
    std::memcpy(to, &from, count * sizeof(float));
  }
}

// Lanes of the vector that begins at element `index` of `size`.
DDPO_SIMD_INLINE int64_t LanesAt(int64_t index, int64_t size) {
  return size - index < kLanes ? size - index : kLanes;
}

// In order of the lanes.
DDPO_SIMD_INLINE float Sum(const FloatVector& x, int64_t count = kLanes) {
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

// exp(x), within 2 units in the last place; 0 below about −87, as float32 has no normal number
// there. Splits x = n ln 2 + r as Cephes does and takes exp(r)'s series.
DDPO_SIMD_INLINE void Exp(const FloatVector& x, FloatVector& result) {
  constexpr float kLowest = -87.0F, kHighest = 88.0F;
  constexpr float kRound = 12582912.0F;  // 1.5 · 2²³: adding it leaves a whole number
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  const FloatVector floor = FloatVector{} + kLowest;
  const FloatVector ceiling = FloatVector{} + kHighest;
  FloatVector clamped = x < floor ? floor : x;
  clamped = clamped > ceiling ? ceiling : clamped;
  const FloatVector shifted = clamped * 1.44269504F + kRound;
  const FloatVector n = shifted - kRound;
  const FloatVector r = clamped - n * kLn2High - n * kLn2Low;
  FloatVector series = r * (1.0F / 5040) + (1.0F / 720);
  series = series * r + (1.0F / 120);
  series = series * r + (1.0F / 24);
  series = series * r + (1.0F / 6);
  series = series * r + 0.5F;
  series = series * r + 1.0F;
  series = series * r + 1.0F;
  // The low bits of `shifted` are n: add them to the exponent.
  const IntVector bits = (IntVector)series + ((IntVector)shifted << 23);
  result = x < floor ? FloatVector{} : (FloatVector)bits;
}

}  // namespace ddpo
