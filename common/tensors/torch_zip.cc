#include "common/tensors/torch_zip.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/tensors/state_dict_pickle.h"
#include "common/tensors/zip_archive.h"

namespace ddpo {
namespace {

using ZipEntries = std::map<std::string, absl::string_view>;

constexpr absl::string_view kPickleName = "/data.pkl";
// Of the sizes that are not 0 of a tensor without elements.
constexpr int64_t kMaxEmptyProduct = int64_t{1} << 40;

struct StorageType {
  absl::string_view name;
  at::ScalarType type;
};
constexpr StorageType kStorageTypes[] = {
    {"DoubleStorage", at::kDouble},     {"FloatStorage", at::kFloat}, {"HalfStorage", at::kHalf},
    {"BFloat16Storage", at::kBFloat16}, {"LongStorage", at::kLong},   {"IntStorage", at::kInt},
    {"ShortStorage", at::kShort},       {"CharStorage", at::kChar},   {"ByteStorage", at::kByte},
    {"BoolStorage", at::kBool}};

// The folder in the archive that everything lies in.
absl::StatusOr<std::string> FindRoot(const std::string& source, const ZipEntries& entries) {
  std::string root;
  for (const auto& [name, contents] : entries) {
    if (!absl::EndsWith(name, kPickleName)) continue;
    if (!root.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": more than one data.pkl"));
    }
    root = name.substr(0, name.size() - kPickleName.size());
  }
  if (root.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": a zip archive without data.pkl; expected what torch.save writes"));
  }
  const auto order = entries.find(root + "/byteorder");
  if (order != entries.end() && order->second != "little") {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": its numbers are not little-endian, as expected"));
  }
  return root;
}

// Turns descriptions into tensors. Each storage is one tensor, which all its views share.
class StorageReader {
 public:
  StorageReader(const std::string& source, std::shared_ptr<std::string> bytes,
                const ZipEntries& entries, std::string root)
      : source_(source), bytes_(std::move(bytes)), entries_(entries), root_(std::move(root)) {}

  absl::StatusOr<at::Tensor> View(const std::string& name, const PickledTensor& pickled) {
    DDPO_ASSIGN_OR_RETURN(const at::Tensor storage, Storage(name, pickled));
    const bool empty = std::count(pickled.sizes.begin(), pickled.sizes.end(), 0) > 0;
    // Counted down from what is there, so that nothing overflows. A storage whose elements are
    // taken twice is refused as well: a small file would become large in memory.
    int64_t last = storage.numel() - pickled.offset - (empty ? 0 : 1);
    int64_t room = empty ? kMaxEmptyProduct : storage.numel();
    bool fits = last >= 0;
    for (size_t i = 0; fits && i < pickled.sizes.size(); ++i) {
      if (pickled.sizes[i] == 0) continue;
      const int64_t steps = empty ? 0 : pickled.sizes[i] - 1;
      fits = pickled.sizes[i] <= room && (steps == 0 || pickled.strides[i] <= last / steps);
      if (fits) last -= steps * pickled.strides[i];
      room /= pickled.sizes[i];
    }
    if (!fits) {
      return absl::DataLossError(
          absl::StrCat(source_, ": tensor ", name, ": sizes [", absl::StrJoin(pickled.sizes, ","),
                       "], strides [", absl::StrJoin(pickled.strides, ","), "] and offset ",
                       pickled.offset, " leave its storage of ", storage.numel(), " elements"));
    }
    if (empty) return at::empty(pickled.sizes, storage.options());
    return storage.as_strided(pickled.sizes, pickled.strides, pickled.offset);
  }

 private:
  absl::StatusOr<at::Tensor> Storage(const std::string& name, const PickledTensor& pickled) {
    const auto error = [&](const auto&... what) {
      return absl::DataLossError(absl::StrCat(source_, ": tensor ", name, ": ", what...));
    };
    const auto type =
        std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                     [&](const StorageType& known) { return known.name == pickled.storage_type; });
    if (type == std::end(kStorageTypes)) {
      return absl::InvalidArgumentError(absl::StrCat(source_, ": tensor ", name, " has the type ",
                                                     pickled.storage_type,
                                                     ", which is not supported"));
    }
    const std::string entry_name = absl::StrCat(root_, "/data/", pickled.storage_key);
    const auto known = storages_.find(entry_name);
    if (known != storages_.end()) {
      if (known->second.scalar_type() == type->type) return known->second;
      return error("its storage has another type elsewhere in the file");
    }
    const auto entry = entries_.find(entry_name);
    if (entry == entries_.end()) return error("its data ", entry_name, " is missing");
    const absl::string_view data = entry->second;
    const auto element = static_cast<int64_t>(c10::elementSize(type->type));
    const auto size = static_cast<int64_t>(data.size());
    if (size % element != 0 || size / element != pickled.storage_elements) {
      return error("its data has ", size, " bytes, expected ", pickled.storage_elements,
                   " elements of ", element);
    }
    at::Tensor storage;
    if (size == 0 || reinterpret_cast<uintptr_t>(data.data()) % element != 0) {
      storage = at::empty({pickled.storage_elements}, type->type);
      if (size > 0) std::memcpy(storage.data_ptr(), data.data(), data.size());
    } else {
      storage = at::from_blob(
          bytes_->data() + (data.data() - bytes_->data()), {pickled.storage_elements},
          [owner = bytes_](void*) {}, at::TensorOptions(type->type));
    }
    return storages_[entry_name] = storage;
  }

  const std::string& source_;
  const std::shared_ptr<std::string> bytes_;
  const ZipEntries& entries_;
  const std::string root_;
  std::map<std::string, at::Tensor> storages_;
};

}  // namespace

absl::StatusOr<NamedTensors> ReadTorchZip(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  return ParseTorchZip(path, std::move(bytes));
}

absl::StatusOr<NamedTensors> ParseTorchZip(const std::string& source, std::string bytes) {
  const auto owned = std::make_shared<std::string>(std::move(bytes));
  DDPO_ASSIGN_OR_RETURN(const ZipEntries entries, ReadStoredZip(source, *owned));
  DDPO_ASSIGN_OR_RETURN(const std::string root, FindRoot(source, entries));
  DDPO_ASSIGN_OR_RETURN(const auto pickled,
                        ParseStateDictPickle(source, entries.at(root + "/data.pkl")));
  StorageReader reader(source, owned, entries, root);
  NamedTensors tensors;
  for (const auto& [name, tensor] : pickled) {
    DDPO_ASSIGN_OR_RETURN(tensors[name], reader.View(name, tensor));
  }
  return tensors;
}

}  // namespace ddpo
