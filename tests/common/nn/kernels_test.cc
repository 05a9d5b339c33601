// The CPU kernels that stand in for LibTorch's, against LibTorch in float64.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "common/nn/geglu.h"
#include "common/nn/group_norm.h"
#include "common/nn/lora_linear.h"
#include "common/nn/small_attention.h"
#include "common/nn/winograd.h"
#include "tests/testing/golden_fixture.h"

namespace ddpo {
namespace {

using ::ddpo::testing::MaxAbsDiff;
using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

// Output and gradients of the inputs for a given gradient of the output.
Tensors RunBothWays(const Function& function, const Tensors& inputs, const at::Tensor& gradient) {
  Tensors leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.detach().clone().requires_grad_(true));
  }
  const at::Tensor output = function(leaves);
  (output * gradient.to(output.scalar_type())).sum().backward();
  Tensors results = {output.detach()};
  for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

// Compares `kernel` in float32 with `reference` in float64, forward and backward; tells also
// whether the kernel gives the same bits when gradients are not recorded.
void ExpectMatches(const Function& kernel, const Function& reference, const Tensors& inputs,
                   double tolerance) {
  const at::Tensor plain = kernel(inputs);
  const at::Tensor gradient = at::randn_like(plain);
  Tensors wide;
  for (const at::Tensor& input : inputs) wide.push_back(input.to(at::kDouble));
  const Tensors actual = RunBothWays(kernel, inputs, gradient);
  const Tensors expected = RunBothWays(reference, wide, gradient);
  EXPECT_TRUE(at::equal(actual[0], plain)) << "recording gradients changes the result";
  for (size_t i = 0; i < actual.size(); ++i) {
    const double size = std::max(1.0, expected[i].abs().max().item<double>());
    EXPECT_LT(MaxAbsDiff(actual[i], expected[i]), tolerance * size)
        << (i == 0 ? "output" : "gradient ") << i;
  }
}

at::Tensor ChannelsLast(const at::Tensor& x) {
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(WinogradConvTest, ConvolvesAsExactlyAsLibTorch) {
  at::manual_seed(1);
  // Channels below, at and past whole vectors; a single tile; many images in several blocks.
  for (const auto& [batch, in, out, height, width] :
       std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>>{
           {1, 16, 16, 2, 2}, {3, 24, 40, 4, 8}, {40, 64, 48, 8, 8}, {2, 17, 33, 6, 10}}) {
    const at::Tensor weight = at::randn({out, in, 3, 3}) / std::sqrt(9.0 * in);
    const at::Tensor bias = at::randn({out});
    ASSERT_TRUE(WinogradConv::Suits(weight));
    const WinogradConv conv(weight);
    // Sums of 9 · in products of size 1/√(9 in): some float32 roundings of results of size 4.
    ExpectMatches([&](const Tensors& x) { return conv.Forward(x[0], bias); },
                  [&](const Tensors& x) {
                    return at::conv2d(x[0], weight.to(at::kDouble), bias.to(at::kDouble), 1, 1);
                  },
                  {ChannelsLast(at::randn({batch, in, height, width}))}, 5e-6);
  }
}

TEST(WinogradConvTest, ARowDoesNotDependOnItsBatch) {
  const WinogradConv conv(at::randn({64, 64, 3, 3}));
  const at::Tensor x = ChannelsLast(at::randn({37, 64, 4, 4}));
  const at::Tensor all = conv.Forward(x, {});
  for (const int64_t count : {1, 2, 3, 5, 16, 31}) {
    EXPECT_TRUE(at::equal(conv.Forward(x.narrow(0, 37 - count, count), {}),
                          all.narrow(0, 37 - count, count)))
        << count;
  }
}

TEST(WinogradConvTest, LeavesOtherConvolutionsToLibTorch) {
  EXPECT_FALSE(WinogradConv::Suits(at::zeros({64, 4, 3, 3})));
  EXPECT_FALSE(WinogradConv::Suits(at::zeros({64, 64, 1, 1})));
  EXPECT_FALSE(WinogradConv::Suits(at::zeros({320, 320, 3, 3})));
  EXPECT_FALSE(WinogradConv::Suits(at::zeros({64, 64, 3, 3}, at::kHalf)));
}

TEST(GroupNormSiluTest, MatchesLibTorch) {
  at::manual_seed(2);
  for (const bool silu : {false, true}) {
    for (const auto& [channels, groups] :
         std::vector<std::pair<int64_t, int64_t>>{{8, 4}, {48, 3}, {40, 4}, {64, 64}}) {
      const at::Tensor weight = at::randn({channels}), bias = at::randn({channels});
      ExpectMatches(
          [&](const Tensors& x) { return GroupNormSilu(x[0], groups, weight, bias, 1e-5, silu); },
          [&](const Tensors& x) {
            const at::Tensor y =
                at::group_norm(x[0], groups, weight.to(at::kDouble), bias.to(at::kDouble), 1e-5);
            return silu ? at::silu(y) : y;
          },
          {ChannelsLast(3 * at::randn({5, channels, 4, 6}) + 1)}, 5e-6);
    }
  }
}

TEST(GroupNormSiluTest, KeepsItsPrecisionFarFromZero) {
  const at::Tensor one = at::ones({16}), zero = at::zeros({16});
  const at::Tensor x = ChannelsLast(at::randn({2, 16, 8, 8}) + 1000);
  const at::Tensor expected =
      at::group_norm(x.to(at::kDouble), 4, one.to(at::kDouble), zero.to(at::kDouble), 1e-5);
  // The mean itself is known to 1000 · 2⁻²⁴ = 6e-5.
  EXPECT_LT(MaxAbsDiff(GroupNormSilu(x, 4, one, zero, 1e-5, false), expected), 3e-4);
}

TEST(GegluTest, MatchesLibTorch) {
  at::manual_seed(3);
  for (const int64_t width : {16, 40, 64}) {
    // ±40 as well: far beyond where Φ is 0 or 1 in float32.
    ExpectMatches([](const Tensors& x) { return Geglu(x[0]); },
                  [](const Tensors& x) {
                    const auto halves = x[0].chunk(2, 1);
                    return halves[0] * at::gelu(halves[1]);
                  },
                  {at::cat({2 * at::randn({9, 2 * width}), 40 * at::randn({3, 2 * width})})}, 1e-6);
  }
}

TEST(LoraLinearTest, MatchesTheProductsApart) {
  at::manual_seed(4);
  constexpr int64_t kIn = 20, kOut = 24, kRank = 3;
  constexpr double kScale = 1.5;
  for (const int64_t layers : {1, 3}) {
    for (const bool with_bias : {false, true}) {
      const at::Tensor weight = at::randn({layers * kOut, kIn});
      const at::Tensor bias = with_bias ? at::randn({layers * kOut}) : at::Tensor();
      ExpectMatches(
          [&](const Tensors& t) { return LoraLinear(t[0], weight, bias, t[1], t[2], kScale); },
          [&](const Tensors& t) {
            Tensors parts;
            for (int64_t i = 0; i < layers; ++i) {
              parts.push_back(at::mm(at::mm(t[0], t[1].narrow(0, i * kRank, kRank).t()),
                                     t[2].narrow(0, i * kOut, kOut).t()));
            }
            return at::linear(t[0], weight.to(at::kDouble),
                              with_bias ? bias.to(at::kDouble) : at::Tensor()) +
                   kScale * at::cat(parts, 1);
          },
          {at::randn({50, kIn}), at::randn({layers * kRank, kIn}),
           at::randn({layers * kOut, kRank})},
          1e-6);
    }
  }
}

at::Tensor ReferenceAttention(const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, int64_t batch, int64_t heads) {
  const auto split = [&](const at::Tensor& rows) {
    return rows.reshape({batch, -1, heads, rows.size(1) / heads}).transpose(1, 2);
  };
  const at::Tensor scores = at::matmul(split(query), split(key).transpose(2, 3)) /
                            std::sqrt(static_cast<double>(query.size(1) / heads));
  return at::matmul(scores.softmax(-1), split(value)).transpose(1, 2).reshape(query.sizes());
}

TEST(SmallAttentionTest, MatchesTheFormula) {
  at::manual_seed(5);
  constexpr int64_t kBatch = 3;
  for (const auto& [queries, keys, channels, heads] :
       std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>{
           {16, 16, 128, 4}, {64, 77, 48, 4}, {5, 1, 8, 8}, {9, 33, 40, 2}}) {
    const AttentionLayout layout{kBatch, heads, channels};
    ExpectMatches([&](const Tensors& t) { return SmallSelfAttention(t[0], layout); },
                  [&, n = channels](const Tensors& t) {
                    const auto parts = t[0].split(n, 1);
                    return ReferenceAttention(parts[0], parts[1], parts[2], kBatch, layout.heads);
                  },
                  {at::randn({kBatch * queries, 3 * channels})}, 2e-6);
    ExpectMatches(
        [&](const Tensors& t) { return SmallCrossAttention(t[0], t[1], layout); },
        [&, n = channels](const Tensors& t) {
          const auto parts = t[1].split(n, 1);
          return ReferenceAttention(t[0], parts[0], parts[1], kBatch, layout.heads);
        },
        {at::randn({kBatch * queries, channels}), at::randn({kBatch * keys, 2 * channels})}, 2e-6);
  }
}

TEST(SmallAttentionTest, LargeScoresNeitherOverflowNorVanish) {
  const AttentionLayout layout{1, 1, 16};
  const at::Tensor qkv = 100 * at::randn({8, 48});
  const auto parts = qkv.to(at::kDouble).split(16, 1);
  const at::Tensor actual = SmallSelfAttention(qkv, layout);
  EXPECT_TRUE(actual.isfinite().all().item<bool>());
  // Scores of some 1e5 are known to 1e-2, values are of size 100.
  EXPECT_LT(MaxAbsDiff(actual, ReferenceAttention(parts[0], parts[1], parts[2], 1, 1)), 5.0);
}

TEST(SmallAttentionTest, LeavesLongSequencesToLibTorch) {
  const at::Tensor rows = at::zeros({1, 64});
  EXPECT_TRUE(SuitsSmallAttention(rows, 64, 77, 64, 2));
  EXPECT_FALSE(SuitsSmallAttention(rows, 1024, 77, 64, 2));
  EXPECT_FALSE(SuitsSmallAttention(rows, 64, 1024, 64, 2));
  EXPECT_FALSE(SuitsSmallAttention(rows.to(at::kHalf), 64, 77, 64, 2));
}

}  // namespace
}  // namespace ddpo
