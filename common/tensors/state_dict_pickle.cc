#include "common/tensors/state_dict_pickle.h"

#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr size_t kMaxPickleBytes = 4 << 20;
constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxStorageKeyBytes = 64;
constexpr absl::string_view kOrderedDict = "collections OrderedDict";
constexpr absl::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr absl::string_view kRebuildParameter = "torch._utils _rebuild_parameter";

// Values are numbered and refer to others by number: a pickle that nests deeply or contains itself
// costs nothing more than its own size.
using Ref = uint32_t;
struct None {};
struct Global {
  std::string name;
};
struct Tuple {
  std::vector<Ref> items;
};
struct Dict {
  std::vector<std::pair<Ref, Ref>> items;
};
struct Storage {
  Ref type;  // a Global
  Ref key;   // a string
  int64_t elements;
};
struct TensorRef {
  size_t index;  // into the machine's tensors
};
using Value =
    std::variant<None, bool, int64_t, std::string, Global, Tuple, Dict, Storage, TensorRef>;

bool IsStorageType(absl::string_view global) {
  return absl::StartsWith(global, "torch ") && absl::EndsWith(global, "Storage");
}

class PickleMachine {
 public:
  PickleMachine(const std::string& source, absl::string_view pickle)
      : source_(source), pickle_(pickle) {}

  absl::StatusOr<std::map<std::string, PickledTensor>> Run() {
    while (!stopped_) {
      DDPO_ASSIGN_OR_RETURN(const absl::string_view code, Read(1));
      DDPO_RETURN_IF_ERROR(Step(static_cast<uint8_t>(code[0])));
    }
    DDPO_ASSIGN_OR_RETURN(const Ref root, Pop());
    const auto* dict = std::get_if<Dict>(&values_[root]);
    if (dict == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(source_, ": holds no dictionary of tensors; expected a state dict"));
    }
    std::map<std::string, PickledTensor> tensors;
    for (const auto& [key, value] : dict->items) {
      const auto* name = std::get_if<std::string>(&values_[key]);
      const auto* tensor = std::get_if<TensorRef>(&values_[value]);
      if (name == nullptr || tensor == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            source_, ": ", name == nullptr ? "a key that is no text" : absl::CEscape(*name),
            " in a dictionary of more than tensors; expected a state dict"));
      }
      if (tensors.contains(*name)) {
        return Damaged(absl::StrCat("tensor ", absl::CEscape(*name), " is there twice"));
      }
      tensors.emplace(*name, tensors_[tensor->index]);
    }
    return tensors;
  }

 private:
  absl::Status Damaged(absl::string_view what) const {
    return absl::DataLossError(
        absl::StrCat(source_, ": not a sound pickle: ", what, " (at byte ", position_, ")"));
  }

  absl::StatusOr<absl::string_view> Read(size_t size) {
    if (size > pickle_.size() - position_) return Damaged("it ends early");
    const absl::string_view bytes = pickle_.substr(position_, size);
    position_ += size;
    return bytes;
  }

  // A little-endian number of `size` bytes.
  absl::StatusOr<uint64_t> ReadUnsigned(size_t size) {
    DDPO_ASSIGN_OR_RETURN(const absl::string_view bytes, Read(size));
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
  }

  absl::StatusOr<absl::string_view> ReadLine() {
    const size_t end = pickle_.find('\n', position_);
    if (end == absl::string_view::npos) return Damaged("it ends early");
    DDPO_ASSIGN_OR_RETURN(const absl::string_view line, Read(end - position_));
    ++position_;
    return line;
  }

  absl::Status Push(Value value) {
    stack_.push_back(static_cast<Ref>(values_.size()));
    values_.push_back(std::move(value));
    return absl::OkStatus();
  }

  absl::StatusOr<Ref> Pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) return Damaged("nothing to take");
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }

  absl::StatusOr<std::vector<Ref>> PopToMark() {
    if (marks_.empty()) return Damaged("a mark is missing");
    std::vector<Ref> items(stack_.begin() + static_cast<ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  absl::Status PushTuple(size_t size) {
    Tuple tuple{std::vector<Ref>(size)};
    for (size_t i = size; i-- > 0;) {
      DDPO_ASSIGN_OR_RETURN(tuple.items[i], Pop());
    }
    return Push(std::move(tuple));
  }

  // The topmost value, which stays on the stack.
  template <typename T>
  absl::StatusOr<T*> Top(const char* what) {
    DDPO_ASSIGN_OR_RETURN(const Ref top, Pop());
    stack_.push_back(top);
    T* value = std::get_if<T>(&values_[top]);
    if (value == nullptr) return Damaged(absl::StrCat("expected ", what));
    return value;
  }

  absl::Status SetItems(const std::vector<Ref>& items) {
    DDPO_ASSIGN_OR_RETURN(Dict* const dict, Top<Dict>("a dictionary"));
    if (items.size() % 2 != 0) return Damaged("a key without a value");
    for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
    return absl::OkStatus();
  }

  absl::Status Remember(uint64_t slot) {
    DDPO_ASSIGN_OR_RETURN(const Ref top, Pop());
    stack_.push_back(top);
    memo_[slot] = top;
    return absl::OkStatus();
  }

  absl::Status Recall(uint64_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) return Damaged(absl::StrCat("nothing was stored as ", slot));
    stack_.push_back(found->second);
    return absl::OkStatus();
  }

  absl::Status PushGlobal() {
    DDPO_ASSIGN_OR_RETURN(const absl::string_view module, ReadLine());
    DDPO_ASSIGN_OR_RETURN(const absl::string_view name, ReadLine());
    const std::string global = absl::StrCat(module, " ", name);
    if (global != kOrderedDict && global != kRebuildTensor && global != kRebuildParameter &&
        !IsStorageType(global)) {
      return absl::InvalidArgumentError(
          absl::StrCat(source_, ": the pickle asks for ", absl::CEscape(module), ".",
                       absl::CEscape(name), ", which a dictionary of tensors does not need"));
    }
    return Push(Global{global});
  }

  // ('storage', type, key, location, elements)
  absl::Status PushStorage() {
    DDPO_ASSIGN_OR_RETURN(const Tuple* const id, Top<Tuple>("a storage's description"));
    if (id->items.size() != 5) return Damaged("expected a storage's description");
    const auto* tag = std::get_if<std::string>(&values_[id->items[0]]);
    const auto* type = std::get_if<Global>(&values_[id->items[1]]);
    const auto* key = std::get_if<std::string>(&values_[id->items[2]]);
    const auto* elements = std::get_if<int64_t>(&values_[id->items[4]]);
    if (tag == nullptr || *tag != "storage" || type == nullptr || !IsStorageType(type->name) ||
        key == nullptr || key->size() > kMaxStorageKeyBytes || elements == nullptr ||
        *elements < 0) {
      return Damaged("expected a storage's description");
    }
    const Storage storage{id->items[1], id->items[2], *elements};
    stack_.pop_back();
    return Push(storage);
  }

  absl::StatusOr<std::vector<int64_t>> Numbers(Ref ref) const {
    const auto* tuple = std::get_if<Tuple>(&values_[ref]);
    if (tuple == nullptr || tuple->items.size() > kMaxDimensions) {
      return Damaged(absl::StrCat("expected at most ", kMaxDimensions, " sizes"));
    }
    std::vector<int64_t> numbers;
    for (const Ref item : tuple->items) {
      const auto* number = std::get_if<int64_t>(&values_[item]);
      if (number == nullptr || *number < 0) return Damaged("expected sizes");
      numbers.push_back(*number);
    }
    return numbers;
  }

  // (storage, offset, sizes, strides, requires_grad, hooks[, metadata])
  absl::Status PushTensor(const Tuple& arguments) {
    const std::vector<Ref>& items = arguments.items;
    const auto* storage = items.size() < 6 ? nullptr : std::get_if<Storage>(&values_[items[0]]);
    const auto* offset = items.size() < 6 ? nullptr : std::get_if<int64_t>(&values_[items[1]]);
    if (storage == nullptr || offset == nullptr || *offset < 0) {
      return Damaged("expected a tensor's description");
    }
    PickledTensor tensor;
    tensor.storage_type = std::get<Global>(values_[storage->type]).name.substr(sizeof("torch"));
    tensor.storage_key = std::get<std::string>(values_[storage->key]);
    tensor.storage_elements = storage->elements;
    tensor.offset = *offset;
    DDPO_ASSIGN_OR_RETURN(tensor.sizes, Numbers(items[2]));
    DDPO_ASSIGN_OR_RETURN(tensor.strides, Numbers(items[3]));
    if (tensor.sizes.size() != tensor.strides.size()) {
      return Damaged("a tensor with more sizes than strides or fewer");
    }
    tensors_.push_back(std::move(tensor));
    return Push(TensorRef{tensors_.size() - 1});
  }

  absl::Status Reduce() {
    DDPO_ASSIGN_OR_RETURN(const Ref arguments_ref, Pop());
    DDPO_ASSIGN_OR_RETURN(const Ref callable_ref, Pop());
    const auto* callable = std::get_if<Global>(&values_[callable_ref]);
    const auto* arguments = std::get_if<Tuple>(&values_[arguments_ref]);
    if (callable == nullptr || arguments == nullptr) return Damaged("expected a call");
    if (callable->name == kOrderedDict && arguments->items.empty()) return Push(Dict{});
    if (callable->name == kRebuildTensor) return PushTensor(*arguments);
    if (callable->name == kRebuildParameter && !arguments->items.empty() &&
        std::holds_alternative<TensorRef>(values_[arguments->items[0]])) {
      stack_.push_back(arguments->items[0]);
      return absl::OkStatus();
    }
    return Damaged(absl::StrCat("a call of ", callable->name, " with unknown arguments"));
  }

  // Attributes of the dictionary, as a state dict's _metadata; not needed.
  absl::Status Build() {
    DDPO_RETURN_IF_ERROR(Pop().status());
    return Top<Dict>("a dictionary").status();
  }

  absl::Status PushLong() {
    DDPO_ASSIGN_OR_RETURN(const uint64_t size, ReadUnsigned(1));
    if (size > sizeof(int64_t)) return Damaged("a number of more than 64 bits");
    DDPO_ASSIGN_OR_RETURN(uint64_t value, ReadUnsigned(size));
    const bool negative = size > 0 && size < sizeof value && (value >> (8 * size - 1)) != 0;
    if (negative) value |= ~uint64_t{0} << (8 * size);
    return Push(static_cast<int64_t>(value));
  }

  absl::Status Step(uint8_t code);

  const std::string& source_;
  const absl::string_view pickle_;
  size_t position_ = 0;
  bool stopped_ = false;
  std::vector<Value> values_;
  std::vector<PickledTensor> tensors_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // sizes of the stack where marks were set
  std::map<uint64_t, Ref> memo_;
};

absl::Status PickleMachine::Step(uint8_t code) {
  switch (code) {
    case 0x80: {  // PROTO
      DDPO_ASSIGN_OR_RETURN(const uint64_t version, ReadUnsigned(1));
      if (version == 2) return absl::OkStatus();
      return absl::InvalidArgumentError(absl::StrCat(source_, ": pickle protocol ", version,
                                                     "; expected 2, which torch.save writes"));
    }
    case '.':  // STOP
      stopped_ = true;
      return absl::OkStatus();
    case '(':  // MARK
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case 'N':  // NONE
      return Push(None{});
    case 0x88:  // NEWTRUE
      return Push(true);
    case 0x89:  // NEWFALSE
      return Push(false);
    case 'J': {  // BININT
      DDPO_ASSIGN_OR_RETURN(const uint64_t value, ReadUnsigned(4));
      return Push(int64_t{static_cast<int32_t>(value)});
    }
    case 'K':    // BININT1
    case 'M': {  // BININT2
      DDPO_ASSIGN_OR_RETURN(const uint64_t value, ReadUnsigned(code == 'K' ? 1 : 2));
      return Push(static_cast<int64_t>(value));
    }
    case 0x8a:  // LONG1
      return PushLong();
    case 'X': {  // BINUNICODE
      DDPO_ASSIGN_OR_RETURN(const uint64_t size, ReadUnsigned(4));
      DDPO_ASSIGN_OR_RETURN(const absl::string_view text, Read(size));
      return Push(std::string(text));
    }
    case 'c':  // GLOBAL
      return PushGlobal();
    case 'Q':  // BINPERSID
      return PushStorage();
    case 'R':  // REDUCE
      return Reduce();
    case 'b':  // BUILD
      return Build();
    case ')':  // EMPTY_TUPLE
      return Push(Tuple{});
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      return PushTuple(code - 0x84);
    case 't': {  // TUPLE
      DDPO_ASSIGN_OR_RETURN(std::vector<Ref> items, PopToMark());
      return Push(Tuple{std::move(items)});
    }
    case '}':  // EMPTY_DICT
      return Push(Dict{});
    case 's': {  // SETITEM
      DDPO_ASSIGN_OR_RETURN(const Ref value, Pop());
      DDPO_ASSIGN_OR_RETURN(const Ref key, Pop());
      return SetItems({key, value});
    }
    case 'u': {  // SETITEMS
      DDPO_ASSIGN_OR_RETURN(const std::vector<Ref> items, PopToMark());
      return SetItems(items);
    }
    case 'q':    // BINPUT
    case 'r': {  // LONG_BINPUT
      DDPO_ASSIGN_OR_RETURN(const uint64_t slot, ReadUnsigned(code == 'q' ? 1 : 4));
      return Remember(slot);
    }
    case 'h':    // BINGET
    case 'j': {  // LONG_BINGET
      DDPO_ASSIGN_OR_RETURN(const uint64_t slot, ReadUnsigned(code == 'h' ? 1 : 4));
      return Recall(slot);
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: the pickle's instruction 0x%02x at byte %d is none that a "
                          "dictionary of tensors needs",
                          source_, code, position_ - 1));
  }
}

}  // namespace

absl::StatusOr<std::map<std::string, PickledTensor>> ParseStateDictPickle(
    const std::string& source, absl::string_view pickle) {
  if (pickle.size() > kMaxPickleBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(source, ": a pickle of ", pickle.size(),
                                                     " bytes; at most ", kMaxPickleBytes,
                                                     " are allowed"));
  }
  return PickleMachine(source, pickle).Run();
}

}  // namespace ddpo
