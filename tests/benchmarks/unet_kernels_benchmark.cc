// The CPU kernels of common/nn against LibTorch's own, in turns within one run, one thread: forward
// without and with recording, and backward. A ratio over 1 means that ours is faster.
//
//   unet_kernels_benchmark [--rows 32] [--rounds 21]

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "common/nn/geglu.h"
#include "common/nn/group_norm.h"
#include "common/nn/small_attention.h"
#include "common/nn/winograd.h"

namespace ddpo {
namespace {

using Function = std::function<at::Tensor(const at::Tensor&)>;

double SecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Medians of `rounds` turns of each.
void Compare(const std::string& name, int rounds, const std::function<void()>& ours,
             const std::function<void()>& theirs) {
  std::vector<double> seconds[2];
  for (int round = 0; round < rounds; ++round) {
    seconds[0].push_back(SecondsOf(ours));
    seconds[1].push_back(SecondsOf(theirs));
  }
  double median[2];
  for (int i = 0; i < 2; ++i) {
    std::sort(seconds[i].begin(), seconds[i].end());
    median[i] = seconds[i][seconds[i].size() / 2];
  }
  std::printf("%-44s ours %8.0f us  LibTorch %8.0f us  ratio %.2f\n", name.c_str(), 1e6 * median[0],
              1e6 * median[1], median[1] / median[0]);
}

void CompareBothWays(const std::string& name, int rounds, const at::Tensor& x, const Function& ours,
                     const Function& theirs) {
  const auto forward = [&](const Function& function) {
    return [&x, &function] {
      const at::NoGradGuard no_grad;
      function(x);
    };
  };
  const auto both = [&](const Function& function) {
    return [&x, &function] {
      const at::Tensor leaf = x.detach().requires_grad_(true);
      const at::Tensor y = function(leaf);
      y.backward(y.detach());
    };
  };
  Compare(name + ", forward", rounds, forward(ours), forward(theirs));
  Compare(name + ", forward and backward", rounds, both(ours), both(theirs));
}

void Run(int64_t rows, int rounds) {
  const auto images = [&](int64_t channels, int64_t size) {
    return at::randn({rows, channels, size, size}).contiguous(at::MemoryFormat::ChannelsLast);
  };
  for (const auto& [in, out, size] : {std::tuple{64, 64, 8}, {192, 64, 8}, {128, 128, 4}}) {
    const at::Tensor weight = at::randn({out, in, 3, 3}) / std::sqrt(9.0 * in);
    const at::Tensor packed = weight.contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor bias = at::randn({out});
    const WinogradConv conv(weight);
    CompareBothWays(
        "conv " + std::to_string(in) + " to " + std::to_string(out) + " at " + std::to_string(size),
        rounds, images(in, size), [&](const at::Tensor& x) { return conv.Forward(x, bias); },
        [&](const at::Tensor& x) { return at::conv2d(x, packed, bias, 1, 1); });
  }
  const at::Tensor one = at::ones({128}), zero = at::zeros({128});
  CompareBothWays(
      "group norm and SiLU, 128 at 8", rounds, images(128, 8),
      [&](const at::Tensor& x) { return GroupNormSilu(x, 16, one, zero, 1e-5, true); },
      [&](const at::Tensor& x) { return at::silu(at::group_norm(x, 16, one, zero, 1e-5)); });
  CompareBothWays(
      "GEGLU, 512 features", rounds, at::randn({16 * rows, 1024}),
      [](const at::Tensor& x) { return Geglu(x); },
      [](const at::Tensor& x) {
        const auto halves = x.chunk(2, 1);
        return halves[0] * at::gelu(halves[1]);
      });
  CompareBothWays(
      "self-attention, 16 tokens, 4 heads of 32", rounds, at::randn({16 * rows, 3 * 128}),
      [&](const at::Tensor& x) {
        return SmallSelfAttention(x, {rows, 4, 128});
      },
      [&](const at::Tensor& x) {
        const auto qkv = x.view({rows, 16, 3, 4, 32}).permute({2, 0, 3, 1, 4}).unbind();
        return at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
            .transpose(1, 2)
            .reshape({16 * rows, 128});
      });
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) {
  int64_t rows = 32;
  int rounds = 21;
  CLI::App app("Compares the CPU kernels of common/nn with LibTorch's");
  app.add_option("--rows", rows)->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(1);
  ddpo::Run(rows, rounds);
  return 0;
}
