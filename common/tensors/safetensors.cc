#include "common/tensors/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                                 {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                                 {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                                 {"BOOL", at::kBool}};

// A file in memory, mapped copy-on-write: tensors may be written to without changing the file.
class Mapping {
 public:
  static absl::StatusOr<std::shared_ptr<Mapping>> Open(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
    struct stat info {};
    void* data = MAP_FAILED;
    if (fstat(fd, &info) == 0 && info.st_size > 0) {
      data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ | PROT_WRITE, MAP_PRIVATE,
                  fd, 0);
    }
    const int error = errno;
    close(fd);
    if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
    if (data == MAP_FAILED) return absl::ErrnoToStatus(error, absl::StrCat("cannot map ", path));
    return std::make_shared<Mapping>(static_cast<char*>(data), static_cast<size_t>(info.st_size));
  }

  Mapping(char* data, size_t size) : data_(data), size_(size) {}
  ~Mapping() { munmap(data_, size_); }
  Mapping(const Mapping&) = delete;

  char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char* const data_;
  const size_t size_;
};

struct Entry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  size_t data_offset = 0;
};

absl::Status Damaged(const std::string& source, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(source, ": not a sound safetensors file: ", what));
}

absl::StatusOr<Entry> ParseEntry(const std::string& source, const std::string& name,
                                 const Json& json, uint64_t data_bytes) {
  const auto damaged = [&](absl::string_view what) {
    return Damaged(source, absl::StrCat("tensor ", name, ": ", what));
  };
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() ||
      !json.contains("shape") || !json["shape"].is_array() || !json.contains("data_offsets") ||
      !json["data_offsets"].is_array() || json["data_offsets"].size() != 2) {
    return damaged("expected dtype, shape and two data_offsets");
  }
  Entry entry;
  entry.name = name;
  const std::string dtype = json["dtype"];
  const auto known = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                  [&](const DtypeName& d) { return dtype == d.name; });
  if (known == std::end(kDtypes)) return damaged(absl::StrCat("unknown dtype ", dtype));
  entry.dtype = known->type;
  uint64_t bytes = c10::elementSize(entry.dtype);
  // What the sizes but those that are 0 come to: LibTorch counts an empty tensor's strides too.
  uint64_t extent = bytes;
  for (const Json& size : json["shape"]) {
    if (!size.is_number_unsigned()) return damaged("a size is not a natural number");
    const uint64_t value = size;
    // An empty tensor may have any other size; what counts is that the product stays in bounds.
    if (value != 0 && bytes > data_bytes / value)
      return damaged("the shape needs more bytes than the file has");
    bytes *= value;
    if (value != 0 && extent > std::numeric_limits<int64_t>::max() / value)
      return damaged("the shape's sizes are too large");
    extent *= std::max<uint64_t>(value, 1);
    entry.shape.push_back(static_cast<int64_t>(value));
  }
  for (const Json& offset : json["data_offsets"]) {
    if (!offset.is_number_unsigned()) return damaged("an offset is not a natural number");
  }
  entry.begin = json["data_offsets"][0];
  entry.end = json["data_offsets"][1];
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return damaged(absl::StrCat("offsets ", entry.begin, " … ", entry.end, " leave the file's ",
                                data_bytes, " bytes of data"));
  }
  if (entry.end - entry.begin != bytes) {
    return damaged(absl::StrCat("offsets hold ", entry.end - entry.begin,
                                " bytes where dtype and shape need ", bytes));
  }
  return entry;
}

absl::StatusOr<Header> ParseHeader(const std::string& source, const char* data, size_t size) {
  if (size < kLengthBytes) return Damaged(source, "shorter than its header's length");
  uint64_t length = 0;
  std::memcpy(&length, data, kLengthBytes);
  if (length > kMaxHeaderBytes) {
    return Damaged(source, absl::StrCat("a header of ", length, " bytes; at most ", kMaxHeaderBytes,
                                        " are allowed"));
  }
  if (length > size - kLengthBytes) {
    return Damaged(source, absl::StrCat("truncated: the header has ", length,
                                        " bytes, the file has ", size - kLengthBytes, " left"));
  }
  const Json json = Json::parse(data + kLengthBytes, data + kLengthBytes + length, nullptr,
                                /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(source, "the header is not a JSON object");
  Header header;
  header.data_offset = kLengthBytes + length;
  const uint64_t data_bytes = size - header.data_offset;
  for (const auto& [name, value] : json.items()) {
    if (name != "__metadata__") {
      DDPO_ASSIGN_OR_RETURN(header.entries.emplace_back(),
                            ParseEntry(source, name, value, data_bytes));
      continue;
    }
    if (!value.is_object()) return Damaged(source, "__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) return Damaged(source, "__metadata__ holds more than strings");
      header.metadata[key] = text;
    }
  }
  std::vector<const Entry*> by_offset;
  for (const Entry& entry : header.entries) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const Entry* a, const Entry* b) {
    return std::make_pair(a->begin, a->end) < std::make_pair(b->begin, b->end);
  });
  uint64_t end = 0;
  for (const Entry* entry : by_offset) {
    if (entry->begin < end) {
      return Damaged(source, absl::StrCat("tensor ", entry->name, " overlaps another"));
    }
    end = entry->end;
  }
  if (end != data_bytes) {
    return Damaged(source, absl::StrCat("the tensors end at byte ", end, " of ", data_bytes));
  }
  return header;
}

// Tensors that view `data`; `owner` lives as long as any of them.
template <typename Owner>
NamedTensors ViewTensors(const Header& header, char* data, const Owner& owner) {
  NamedTensors tensors;
  for (const Entry& entry : header.entries) {
    const auto options = at::TensorOptions(entry.dtype);
    char* begin = data + header.data_offset + entry.begin;
    // The format does not align: a tensor at an odd address is copied.
    if (reinterpret_cast<uintptr_t>(begin) % c10::elementSize(entry.dtype) != 0) {
      at::Tensor copy = at::empty(entry.shape, options);
      std::memcpy(copy.data_ptr(), begin, entry.end - entry.begin);
      tensors[entry.name] = copy;
    } else {
      tensors[entry.name] = at::from_blob(
          begin, entry.shape, [owner](void*) {}, options);
    }
  }
  return tensors;
}

absl::StatusOr<SafetensorsContents> ReadOneFile(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const std::shared_ptr<Mapping> mapping, Mapping::Open(path));
  DDPO_ASSIGN_OR_RETURN(Header header, ParseHeader(path, mapping->data(), mapping->size()));
  return SafetensorsContents{ViewTensors(header, mapping->data(), mapping),
                             std::move(header.metadata)};
}

absl::StatusOr<SafetensorsContents> ReadShards(const std::string& index_path) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path));
  const Json index = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::DataLossError(
        absl::StrCat(index_path, ": expected a JSON object with weight_map"));
  }
  std::map<std::string, std::set<std::string>> names_by_file;
  for (const auto& [name, file] : index["weight_map"].items()) {
    const std::string file_name = file.is_string() ? file.get<std::string>() : "";
    if (file_name.empty() || absl::StrContains(file_name, "/")) {
      return absl::DataLossError(
          absl::StrCat(index_path, ": weight_map.", name, ": expected a file name"));
    }
    names_by_file[file_name].insert(name);
  }
  SafetensorsContents all;
  for (const auto& [file, names] : names_by_file) {
    const std::string path = JoinPath(DirName(index_path), file);
    DDPO_ASSIGN_OR_RETURN(SafetensorsContents shard, ReadOneFile(path));
    for (const std::string& name : names) {
      const auto tensor = shard.tensors.find(name);
      if (tensor == shard.tensors.end()) {
        return absl::DataLossError(
            absl::StrCat(path, ": tensor ", name, " is missing, which ", index_path, " names"));
      }
      all.tensors[name] = tensor->second;
    }
    all.metadata.insert(shard.metadata.begin(), shard.metadata.end());
  }
  return all;
}

const char* NameOf(at::ScalarType type) {
  for (const DtypeName& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<SafetensorsContents> ReadSafetensors(const std::string& path) {
  return absl::EndsWith(path, ".index.json") ? ReadShards(path) : ReadOneFile(path);
}

absl::StatusOr<SafetensorsContents> ParseSafetensors(const std::string& bytes) {
  auto owned = std::make_shared<std::string>(bytes);
  DDPO_ASSIGN_OR_RETURN(Header header, ParseHeader("bytes", owned->data(), owned->size()));
  return SafetensorsContents{ViewTensors(header, owned->data(), owned), std::move(header.metadata)};
}

std::string SerializeSafetensors(const NamedTensors& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  std::vector<at::Tensor> contiguous;
  for (const auto& [name, tensor] : tensors) {
    const char* dtype = NameOf(tensor.scalar_type());
    TORCH_CHECK(dtype != nullptr, name, ": safetensors has no dtype for ", tensor.scalar_type());
    contiguous.push_back(tensor.detach().to(at::kCPU).contiguous());
    const uint64_t end = offset + contiguous.back().nbytes();
    header[name] = {
        {"dtype", dtype}, {"shape", tensor.sizes().vec()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data starts aligned
  const uint64_t length = text.size();
  std::string bytes;
  bytes.reserve(kLengthBytes + text.size() + offset);
  bytes.append(reinterpret_cast<const char*>(&length), kLengthBytes);
  bytes.append(text);
  for (const at::Tensor& tensor : contiguous) {
    bytes.append(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
  }
  return bytes;
}

absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata) {
  return WriteFileAtomically(path, SerializeSafetensors(tensors, metadata));
}

}  // namespace ddpo
