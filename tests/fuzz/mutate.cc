#include "tests/fuzz/mutate.h"

#include <google/protobuf/message.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>
#include <memory>
#include <vector>

namespace ddpo::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMaxBytes = 1 << 16;

// Where sizes and lengths are stored, most formats take them from 1 to 8 bytes in either order.
void OverwriteNumber(std::string* bytes, Random& random) {
  const size_t width = size_t{1} << random.Below(4);
  if (bytes->size() < width) return;
  const size_t at = random.Below(bytes->size() - width + 1);
  const bool big_endian = random.OneIn(2);
  const uint64_t value = random.Number();
  for (size_t i = 0; i < width; ++i) {
    (*bytes)[at + i] = static_cast<char>(value >> (8 * (big_endian ? width - 1 - i : i)));
  }
}

double Real(Random& random) {
  using Limits = std::numeric_limits<double>;
  constexpr double kSpecial[] = {0,
                                 -0.0,
                                 1,
                                 -1,
                                 Limits::infinity(),
                                 -Limits::infinity(),
                                 Limits::quiet_NaN(),
                                 Limits::max(),
                                 Limits::denorm_min()};
  if (random.OneIn(2)) return kSpecial[random.Below(std::size(kSpecial))];
  return std::bit_cast<double>(random.Next());
}

// Text in proto3 is UTF-8; anything else would not parse.
std::string ToAscii(std::string text) {
  for (char& c : text) c = static_cast<char>(c & 0x7f);
  return text;
}

std::string MutateText(const FieldDescriptor* field, const std::string& text, Random& random) {
  const std::string mutated = random.OneIn(8) ? "" : MutateBytes(text, random);
  return field->type() == FieldDescriptor::TYPE_STRING ? ToAscii(mutated) : mutated;
}

void SetSingular(Message* message, const FieldDescriptor* field, Random& random) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(message, field, static_cast<int32_t>(random.Number()));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(message, field, static_cast<int64_t>(random.Number()));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(message, field, static_cast<uint32_t>(random.Number()));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field, random.Number());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, field, Real(random));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->SetFloat(message, field, static_cast<float>(Real(random)));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, random.OneIn(2));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(message, field, static_cast<int>(random.Number()));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(
          message, field, MutateText(field, reflection->GetString(*message, field), random));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MutateMessage(reflection->MutableMessage(message, field), random);
  }
}

void AddOne(Message* message, const FieldDescriptor* field, Random& random) {
  const Reflection* reflection = message->GetReflection();
  const int size = reflection->FieldSize(*message, field);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      Message* added = reflection->AddMessage(message, field);
      if (size == 0) return MutateMessage(added, random);
      // A copy of one that is there.
      return added->CopyFrom(reflection->GetRepeatedMessage(
          *message, field, static_cast<int>(random.Below(static_cast<size_t>(size)))));
    }
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->AddString(message, field, MutateText(field, "", random));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->AddUInt64(message, field, random.Number());
    default:
      return;  // no message of ours repeats other types
  }
}

void ChangeRepeated(Message* message, const FieldDescriptor* field, Random& random) {
  const Reflection* reflection = message->GetReflection();
  const int size = reflection->FieldSize(*message, field);
  if (size == 0 || random.OneIn(4)) return AddOne(message, field, random);
  const auto place = [&] { return static_cast<int>(random.Below(static_cast<size_t>(size))); };
  if (random.OneIn(4)) return reflection->RemoveLast(message, field);
  if (random.OneIn(4)) return reflection->SwapElements(message, field, place(), place());
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return MutateMessage(reflection->MutableRepeatedMessage(message, field, place()), random);
  }
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    const int at = place();
    reflection->SetRepeatedString(
        message, field, at,
        MutateText(field, reflection->GetRepeatedString(*message, field, at), random));
  }
}

}  // namespace

uint64_t Random::Number() {
  const uint64_t edge = uint64_t{1} << Below(64);
  switch (Below(4)) {
    case 0:
      return edge - 1 + Below(3);
    case 1:
      return Below(256);
    case 2:
      return ~edge + Below(3);
    default:
      return Next() >> Below(64);
  }
}

std::string MutateBytes(std::string bytes, Random& random) {
  const size_t changes = 1 + random.Below(4);
  for (size_t change = 0; change < changes; ++change) {
    const size_t at = random.Below(bytes.size() + 1);
    const size_t length = std::min(bytes.size() - at, size_t{1} << random.Below(7));
    switch (random.Below(7)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<char>(random.Next());
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, 1 + random.Below(8), static_cast<char>(random.Next()));
        break;
      case 4:
        bytes.insert(at, bytes.substr(random.Below(bytes.size() + 1), length));
        break;
      case 5:
        bytes.resize(at);
        break;
      default:
        OverwriteNumber(&bytes, random);
    }
  }
  if (bytes.size() > kMaxBytes) bytes.resize(kMaxBytes);
  return bytes;
}

void MutateMessage(Message* message, Random& random) {
  const auto* descriptor = message->GetDescriptor();
  if (descriptor->field_count() == 0) return;
  const FieldDescriptor* field =
      descriptor->field(static_cast<int>(random.Below(descriptor->field_count())));
  if (field->is_repeated()) return ChangeRepeated(message, field, random);
  if (random.OneIn(8)) return message->GetReflection()->ClearField(message, field);
  SetSingular(message, field, random);
}

std::string MutateSerialized(const Message& prototype, const std::string& bytes, Random& random) {
  const std::unique_ptr<Message> message(prototype.New());
  if (random.OneIn(3) || !message->ParseFromString(bytes)) return MutateBytes(bytes, random);
  const size_t changes = 1 + random.Below(4);
  for (size_t change = 0; change < changes; ++change) MutateMessage(message.get(), random);
  return message->SerializeAsString();
}

}  // namespace ddpo::fuzz
