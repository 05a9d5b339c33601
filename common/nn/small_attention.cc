#include "common/nn/small_attention.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/nn/simd.h"

namespace ddpo {
namespace {

constexpr int64_t kMaxKeyLength = 128;
constexpr int64_t kMaxHeadChannels = 64;
static_assert(kMaxHeadChannels <= kMaxKeyLength);

// One head of one sequence. Matrices are rows of `*_stride` floats that begin at the head's first
// channel.
struct Head {
  const float* query;
  const float* key;
  const float* value;
  int64_t query_stride;
  int64_t key_stride;
  int64_t query_length;
  int64_t key_length;
  int64_t channels;
  float scale;

  // Rounded up to whole vectors.
  int64_t padded_keys() const { return (key_length + kLanes - 1) / kLanes * kLanes; }
};

// [rows,channels] -> [channels,padded rows], with zeros in the padding.
DDPO_SIMD_INLINE void Transpose(const float* matrix, int64_t stride, int64_t rows, int64_t channels,
                                int64_t padded_rows, float* transposed) {
  for (int64_t c = 0; c < channels; ++c) {
    float* line = transposed + c * padded_rows;
    for (int64_t r = 0; r < rows; ++r) line[r] = matrix[r * stride + c];
    for (int64_t r = rows; r < padded_rows; ++r) line[r] = 0;
  }
}

// A matrix read by element: element (i, j) stands at data[i · row + j · column].
struct Strided {
  const float* data;
  int64_t row;
  int64_t column;
};

// Rows [begin, begin + kRows) of out [M,width] = a [M,K] · b [K,width], for the columns of one
// vector, which begin at `b` and `out`. Several rows at once keep several sums in flight.
template <int kRows, typename Lanes>
DDPO_SIMD_INLINE void MultiplyRows(const Strided& a, int64_t begin, int64_t inner, const float* b,
                                   int64_t b_stride, Lanes lanes, float* out, int64_t out_stride) {
  FloatVector sums[kRows] = {}, line;
  for (int64_t k = 0; k < inner; ++k) {
    Load(b + k * b_stride, line, AllLanes{});
    const float* element = a.data + begin * a.row + k * a.column;
    for (int i = 0; i < kRows; ++i) sums[i] += element[i * a.row] * line;
  }
  for (int i = 0; i < kRows; ++i) Store(sums[i], out + (begin + i) * out_stride, lanes);
}

// out [rows,width] = a [rows,inner] · b [inner,width], inner ≤ kMaxKeyLength.
DDPO_SIMD_INLINE void Multiply(const Strided& a, int64_t rows, int64_t inner, const float* b,
                               int64_t b_stride, int64_t width, float* out, int64_t out_stride) {
  constexpr int kBlock = 8;
  ForEachVector(width, [&](int64_t column, auto lanes) DDPO_SIMD_LAMBDA {
    const float* lines = b + column;
    int64_t stride = b_stride;
    float packed[kMaxKeyLength * kLanes];
    if constexpr (!std::is_same_v<decltype(lanes), AllLanes>) {
      // Part of a vector costs more to load than a whole one: fill it up once.
      FloatVector line;
      for (int64_t k = 0; k < inner; ++k) {
        Load(lines + k * stride, line, lanes);
        Store(line, packed + k * kLanes, AllLanes{});
      }
      lines = packed;
      stride = kLanes;
    }
    int64_t i = 0;
    for (; i + kBlock <= rows; i += kBlock) {
      MultiplyRows<kBlock>(a, i, inner, lines, stride, lanes, out + column, out_stride);
    }
    for (; i < rows; ++i) {
      MultiplyRows<1>(a, i, inner, lines, stride, lanes, out + column, out_stride);
    }
  });
}

DDPO_SIMD_INLINE float Highest(const float* values, int64_t count) {
  FloatVector highest = FloatVector{} + values[0], value;
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    Load(values + j, value, AllLanes{});
    highest = value > highest ? value : highest;
  }
  float lanes[kLanes];
  Store(highest, lanes, AllLanes{});
  for (; j < count; ++j) lanes[0] = values[j] > lanes[0] ? values[j] : lanes[0];
  for (int64_t i = 1; i < kLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

// In place over `length` scores, first multiplied by `scale`; the padding up to whole vectors
// becomes 0.
DDPO_SIMD_INLINE void Softmax(float* scores, float scale, int64_t length, int64_t padded) {
  const float highest = Highest(scores, length);
  for (int64_t j = 0; j < padded; j += kLanes) {
    FloatVector value;
    Load(scores + j, value, AllLanes{});
    Exp((value - highest) * scale, value);
    Store(value, scores + j, AllLanes{});
  }
  for (int64_t j = length; j < padded; ++j) scores[j] = 0;
  FloatVector total{}, value;
  for (int64_t j = 0; j < padded; j += kLanes) {
    Load(scores + j, value, AllLanes{});
    total += value;
  }
  const float inverse = 1.0F / Sum(total);
  for (int64_t j = 0; j < padded; ++j) scores[j] *= inverse;
}

// probabilities: [query_length, padded_keys], kept for the backward pass. scratch:
// channels · padded_keys floats.
DDPO_SIMD_INLINE void AttendHead(const Head& head, float* scratch, float* probabilities,
                                 int64_t out_stride, float* out) {
  const int64_t padded = head.padded_keys();
  Transpose(head.key, head.key_stride, head.key_length, head.channels, padded, scratch);
  Multiply({head.query, head.query_stride, 1}, head.query_length, head.channels, scratch, padded,
           padded, probabilities, padded);
  for (int64_t i = 0; i < head.query_length; ++i) {
    Softmax(probabilities + i * padded, head.scale, head.key_length, padded);
  }
  Multiply({probabilities, padded, 1}, head.query_length, head.key_length, head.value,
           head.key_stride, head.channels, out, out_stride);
}

// dS [S,padded L] in place of dP: P · (dP − rowsum(dP · P)) · scale.
DDPO_SIMD_INLINE void SoftmaxBackward(const float* probabilities, int64_t rows, int64_t padded,
                                      float scale, float* scores) {
  for (int64_t i = 0; i < rows; ++i, probabilities += padded, scores += padded) {
    FloatVector total{}, probability, score;
    for (int64_t j = 0; j < padded; j += kLanes) {
      Load(probabilities + j, probability, AllLanes{});
      Load(scores + j, score, AllLanes{});
      total += probability * score;
    }
    const float sum = Sum(total);
    for (int64_t j = 0; j < padded; j += kLanes) {
      Load(probabilities + j, probability, AllLanes{});
      Load(scores + j, score, AllLanes{});
      Store(probability * (score - sum) * scale, scores + j, AllLanes{});
    }
  }
}

struct HeadGradients {
  float* query;
  float* key;
  float* value;
};

// With P the probabilities and S the scores: dV = Pᵀ dO, dP = dO Vᵀ, dQ = dS K, dK = dSᵀ Q.
// scratch: (channels + query_length) · padded_keys floats.
DDPO_SIMD_INLINE void BackpropagateHead(const Head& head, const float* probabilities,
                                        const float* gradient, int64_t gradient_stride,
                                        float* scratch, const HeadGradients& to) {
  const int64_t padded = head.padded_keys();
  float* scores = scratch + head.channels * padded;
  Multiply({probabilities, 1, padded}, head.key_length, head.query_length, gradient,
           gradient_stride, head.channels, to.value, head.key_stride);
  Transpose(head.value, head.key_stride, head.key_length, head.channels, padded, scratch);
  Multiply({gradient, gradient_stride, 1}, head.query_length, head.channels, scratch, padded,
           padded, scores, padded);
  SoftmaxBackward(probabilities, head.query_length, padded, head.scale, scores);
  Multiply({scores, padded, 1}, head.query_length, head.key_length, head.key, head.key_stride,
           head.channels, to.query, head.query_stride);
  Multiply({scores, 1, padded}, head.key_length, head.query_length, head.query, head.query_stride,
           head.channels, to.key, head.key_stride);
}

DDPO_SIMD_DISPATCH(AttendHead,
                   (const Head& head, float* scratch, float* probabilities, int64_t out_stride,
                    float* out),
                   (head, scratch, probabilities, out_stride, out))
DDPO_SIMD_DISPATCH(BackpropagateHead,
                   (const Head& head, const float* probabilities, const float* gradient,
                    int64_t gradient_stride, float* scratch, const HeadGradients& to),
                   (head, probabilities, gradient, gradient_stride, scratch, to))

// Queries in the first C columns of `queries`; keys and values, C columns each, in `keys_values`
// from column `key_column` on. In self-attention both are the same matrix.
struct Operands {
  at::Tensor queries;
  at::Tensor keys_values;
  int64_t key_column;
  AttentionLayout layout;

  int64_t query_length() const { return queries.size(0) / layout.batch; }
  int64_t key_length() const { return keys_values.size(0) / layout.batch; }

  Head HeadAt(int64_t sequence, int64_t index) const {
    const int64_t width = layout.channels / layout.heads;
    const float* key = keys_values.const_data_ptr<float>() +
                       sequence * key_length() * keys_values.size(1) + key_column + index * width;
    return {.query = queries.const_data_ptr<float>() + sequence * query_length() * queries.size(1) +
                     index * width,
            .key = key,
            .value = key + layout.channels,
            .query_stride = queries.size(1),
            .key_stride = keys_values.size(1),
            .query_length = query_length(),
            .key_length = key_length(),
            .channels = width,
            .scale = 1.0F / std::sqrt(static_cast<float>(width))};
  }
};

// [B·S,C] and, in `probabilities`, [B,heads,S,padded L].
at::Tensor Attend(const Operands& operands, at::Tensor& probabilities) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const AttentionLayout& layout = operands.layout;
  const int64_t width = layout.channels / layout.heads;
  const Head first = operands.HeadAt(0, 0);
  const int64_t head_scores = first.query_length * first.padded_keys();
  at::Tensor out =
      at::empty({operands.queries.size(0), layout.channels}, operands.queries.options());
  probabilities = at::empty({layout.batch, layout.heads, first.query_length, first.padded_keys()},
                            operands.queries.options());
  at::parallel_for(0, layout.batch, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(width * first.padded_keys());
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t h = 0; h < layout.heads; ++h) {
        DispatchAttendHead(
            operands.HeadAt(b, h), scratch.data(),
            probabilities.data_ptr<float>() + (b * layout.heads + h) * head_scores, layout.channels,
            out.data_ptr<float>() + b * first.query_length * layout.channels + h * width);
      }
    }
  });
  return out;
}

// Gradients of queries and, unless self-attention, of keys_values.
std::pair<at::Tensor, at::Tensor> Backpropagate(const Operands& operands,
                                                const at::Tensor& probabilities,
                                                const at::Tensor& gradient) {
  const AttentionLayout& layout = operands.layout;
  const int64_t width = layout.channels / layout.heads;
  const Head first = operands.HeadAt(0, 0);
  const int64_t head_scores = first.query_length * first.padded_keys();
  at::Tensor d_queries = at::empty_like(operands.queries);
  at::Tensor d_keys_values = operands.keys_values.is_same(operands.queries)
                                 ? d_queries
                                 : at::empty_like(operands.keys_values);
  at::parallel_for(0, layout.batch, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch((width + first.query_length) * first.padded_keys());
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t h = 0; h < layout.heads; ++h) {
        const Head head = operands.HeadAt(b, h);
        float* d_key = d_keys_values.data_ptr<float>() +
                       (head.key - operands.keys_values.const_data_ptr<float>());
        float* d_query =
            d_queries.data_ptr<float>() + (head.query - operands.queries.const_data_ptr<float>());
        DispatchBackpropagateHead(
            head, probabilities.const_data_ptr<float>() + (b * layout.heads + h) * head_scores,
            gradient.const_data_ptr<float>() + b * first.query_length * layout.channels + h * width,
            layout.channels, scratch.data(),
            {.query = d_query, .key = d_key, .value = d_key + layout.channels});
      }
    }
  });
  return {d_queries, d_keys_values};
}

class SmallAttentionFunction : public torch::autograd::Function<SmallAttentionFunction> {
 public:
  // Without keys_values: self-attention.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& queries,
                            const std::optional<at::Tensor>& keys_values,
                            const AttentionLayout& layout) {
    at::Tensor probabilities;
    at::Tensor out = Attend(MakeOperands(queries, keys_values, layout), probabilities);
    context->save_for_backward({queries, keys_values.value_or(at::Tensor()), probabilities});
    context->saved_data["batch"] = layout.batch;
    context->saved_data["heads"] = layout.heads;
    context->saved_data["channels"] = layout.channels;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const std::optional<at::Tensor> keys_values =
        saved[1].defined() ? std::optional(saved[1]) : std::nullopt;
    const AttentionLayout layout{data["batch"].toInt(), data["heads"].toInt(),
                                 data["channels"].toInt()};
    auto [d_queries, d_keys_values] = Backpropagate(MakeOperands(saved[0], keys_values, layout),
                                                    saved[2], gradients[0].contiguous());
    return {d_queries, keys_values.has_value() ? d_keys_values : at::Tensor(), {}};
  }

  static Operands MakeOperands(const at::Tensor& queries,
                               const std::optional<at::Tensor>& keys_values,
                               const AttentionLayout& layout) {
    if (!keys_values.has_value()) return {queries, queries, layout.channels, layout};
    return {queries, *keys_values, 0, layout};
  }
};

at::Tensor Apply(const at::Tensor& queries, const std::optional<at::Tensor>& keys_values,
                 const AttentionLayout& layout) {
  if (at::GradMode::is_enabled() &&
      (queries.requires_grad() || (keys_values.has_value() && keys_values->requires_grad()))) {
    return SmallAttentionFunction::apply(queries, keys_values, layout);
  }
  at::Tensor probabilities;
  return Attend(SmallAttentionFunction::MakeOperands(queries, keys_values, layout), probabilities);
}

}  // namespace

bool SuitsSmallAttention(const at::Tensor& queries, int64_t query_length, int64_t key_length,
                         int64_t channels, int64_t heads) {
  return queries.is_cpu() && queries.scalar_type() == at::kFloat && query_length <= kMaxKeyLength &&
         key_length <= kMaxKeyLength && channels / heads <= kMaxHeadChannels;
}

at::Tensor SmallSelfAttention(const at::Tensor& qkv, const AttentionLayout& layout) {
  return Apply(qkv.contiguous(), std::nullopt, layout);
}

at::Tensor SmallCrossAttention(const at::Tensor& queries, const at::Tensor& keys_values,
                               const AttentionLayout& layout) {
  return Apply(queries.contiguous(), keys_values.contiguous(), layout);
}

}  // namespace ddpo
