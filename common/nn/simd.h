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

// How many lanes of a vector count: all of them, known when compiling, or the first few at the end
// of a row.
struct AllLanes {};

// The lanes that do not count become zero. Vectors are passed by reference because passing them by
// value differs between instruction sets.
DDPO_SIMD_INLINE void Load(const float* from, FloatVector& to, AllLanes) {
  std::memcpy(&to, from, sizeof(FloatVector));
}
DDPO_SIMD_INLINE void Load(const float* from, FloatVector& to, int64_t lanes) {
  to = FloatVector{};
  std::memcpy(&to, from, lanes * sizeof(float));
}
DDPO_SIMD_INLINE void Store(const FloatVector& from, float* to, AllLanes) {
  std::memcpy(to, &from, sizeof(FloatVector));
}
DDPO_SIMD_INLINE void Store(const FloatVector& from, float* to, int64_t lanes) {
  std::memcpy(to, &from, lanes * sizeof(float));
}

// Calls body(index, lanes) for the vectors of a row of `size` values. The body is a lambda marked
// DDPO_SIMD_LAMBDA, so that it is compiled for the kernel's instruction set.
#define DDPO_SIMD_LAMBDA __attribute__((always_inline))
template <typename Body>
DDPO_SIMD_INLINE void ForEachVector(int64_t size, const Body& body) {
  int64_t index = 0;
  for (; index + kLanes <= size; index += kLanes) body(index, AllLanes{});
  if (index < size) body(index, size - index);
}

// Halves added to halves.
DDPO_SIMD_INLINE float Sum(const FloatVector& x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof(lanes));
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[half + i];
  }
  return lanes[0];
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
