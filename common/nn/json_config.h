#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ddpo {

// A model folder's JSON file with typed access. Errors are INVALID_ARGUMENT and name the file, the
// key, what stands there and what was expected.
class JsonConfig {
 public:
  // NOT_FOUND for a file that is not there.
  static absl::StatusOr<JsonConfig> Read(const std::string& path);
  // The same, and an object without keys for a file that is not there.
  static absl::StatusOr<JsonConfig> ReadIfThere(const std::string& path);
  // What is in memory already; `path` stands for the file in errors.
  static JsonConfig Of(const std::string& path, nlohmann::json json);
  // An object without keys.
  static JsonConfig Empty(const std::string& path);
  ~JsonConfig();
  JsonConfig(JsonConfig&&) noexcept;

  // The key's value, or the fallback where the key is absent.
  absl::StatusOr<int64_t> Int(const std::string& key, int64_t fallback, int64_t low = 1,
                              int64_t high = 1 << 20) const;
  absl::StatusOr<double> Number(const std::string& key, double fallback) const;
  absl::StatusOr<bool> Bool(const std::string& key, bool fallback) const;
  absl::StatusOr<std::string> String(const std::string& key, const std::string& fallback) const;
  absl::StatusOr<std::vector<int64_t>> IntList(const std::string& key,
                                               const std::vector<int64_t>& fallback) const;
  // The object below a key, with errors that name it; an empty one where the key is absent.
  absl::StatusOr<JsonConfig> Object(const std::string& key) const;
  // The objects of the list below a key; none where the key is absent.
  absl::StatusOr<std::vector<JsonConfig>> Objects(const std::string& key) const;

  // The key has to be absent or null or have one of these values (as JSON text).
  absl::Status Require(const std::string& key, const std::vector<std::string>& allowed) const;
  // The same, and it has to be there.
  absl::Status RequirePresent(const std::string& key,
                              const std::vector<std::string>& allowed) const;

  bool Has(const std::string& key) const;
  const nlohmann::json& json() const { return *json_; }
  const std::string& path() const { return path_; }
  absl::Status Error(const std::string& key, const std::string& expected) const;

 private:
  JsonConfig(std::string path, nlohmann::json json);

  std::string path_;
  std::unique_ptr<nlohmann::json> json_;
};

}  // namespace ddpo
