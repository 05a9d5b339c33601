#include "learner/checkpoint.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/base/kill_point.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr char kPrefix[] = "epoch_";
// A folder that is being written, and one that is being replaced.
constexpr char kTemporary[] = ".writing-";
constexpr char kOld[] = ".old-";
constexpr char kManifest[] = "MANIFEST.json";
constexpr char kTime[] = "unix_seconds";  // in the manifest
constexpr char kTrainer[] = "trainer.safetensors";
constexpr char kState[] = "state.json";
constexpr char kConfig[] = "config.yaml";
constexpr absl::string_view kPolicyPrefix = "policy_";
constexpr absl::string_view kPolicySuffix = ".safetensors";

std::string StateJson(const Checkpoint& checkpoint) {
  std::string ledger;
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  (void)google::protobuf::util::MessageToJsonString(checkpoint.ledger, &ledger, options);
  return Json{{"epochs_done", checkpoint.epochs_done},
              {"elapsed_seconds", checkpoint.elapsed_seconds},
              {"prompt_statistics", checkpoint.prompt_statistics},
              {"model_digest", checkpoint.model_digest},
              {"scorer_digest", checkpoint.scorer_digest},
              {"generation", checkpoint.generation},
              {"ledger", Json::parse(ledger)}}
             .dump(1) +
         "\n";
}

absl::Status ReadState(const std::string& path, const std::string& text, Checkpoint* checkpoint) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError(absl::StrCat(path, ": not a JSON object"));
  try {
    checkpoint->epochs_done = json.at("epochs_done");
    checkpoint->elapsed_seconds = json.at("elapsed_seconds");
    checkpoint->prompt_statistics = json.at("prompt_statistics");
    checkpoint->model_digest = json.at("model_digest");
    checkpoint->scorer_digest = json.value("scorer_digest", "");  // older ones have none
    checkpoint->generation = json.at("generation");
    const auto parsed =
        google::protobuf::util::JsonStringToMessage(json.at("ledger").dump(), &checkpoint->ledger);
    if (!parsed.ok()) return absl::DataLossError(absl::StrCat(path, ": damaged ledger"));
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": ", error.what()));
  }
  return absl::OkStatus();
}

// The number in policy_NNNNN.safetensors.
std::optional<int64_t> PolicyVersion(absl::string_view file) {
  int64_t version = 0;
  if (!absl::ConsumePrefix(&file, kPolicyPrefix) || !absl::ConsumeSuffix(&file, kPolicySuffix) ||
      !absl::SimpleAtoi(file, &version)) {
    return std::nullopt;
  }
  return version;
}

}  // namespace

absl::Status CheckpointStore::Write(const Checkpoint& checkpoint) {
  const std::string name = absl::StrFormat("%s%05d", kPrefix, checkpoint.epochs_done);
  const std::string temporary = JoinPath(dir_, absl::StrCat(kTemporary, name));
  DDPO_RETURN_IF_ERROR(file_system_->RemoveAll(temporary));
  DDPO_RETURN_IF_ERROR(file_system_->CreateDirectories(temporary));
  std::map<std::string, std::string> files = {{kTrainer, checkpoint.trainer_state},
                                              {kState, StateJson(checkpoint)},
                                              {kConfig, checkpoint.config_yaml}};
  for (const auto& [version, bytes] : checkpoint.policies) {
    files[absl::StrFormat("%s%05d%s", kPolicyPrefix, version, kPolicySuffix)] = bytes;
  }
  Json hashes = Json::object();
  for (const auto& [file, contents] : files) {
    DDPO_RETURN_IF_ERROR(file_system_->WriteSynced(JoinPath(temporary, file), contents));
    hashes[file] = Sha256Hex(contents);
    KillPoint("checkpoint.file");
  }
  const Json manifest = {{"format", kFormat},
                         {"epochs_done", checkpoint.epochs_done},
                         {"generation", checkpoint.generation},
                         {kTime, absl::ToDoubleSeconds(clock_->Now() - absl::UnixEpoch())},
                         {"sha256", hashes}};
  DDPO_RETURN_IF_ERROR(
      file_system_->WriteSynced(JoinPath(temporary, kManifest), manifest.dump(1) + "\n"));
  DDPO_RETURN_IF_ERROR(file_system_->SyncDirectory(temporary));
  // The same epoch's checkpoint may be there already, damaged, from before a resume. It is moved
  // away first, as a folder cannot be renamed onto one that holds something. Both renames are made
  // durable together, and the disk may get the first alone: hence List knows the other name.
  const std::string final_path = JoinPath(dir_, name);
  const std::string old = JoinPath(dir_, absl::StrCat(kOld, name));
  if (file_system_->Exists(final_path)) {
    DDPO_RETURN_IF_ERROR(file_system_->RemoveAll(old));
    DDPO_RETURN_IF_ERROR(file_system_->Rename(final_path, old));
  }
  KillPoint("checkpoint.before_rename");
  DDPO_RETURN_IF_ERROR(file_system_->Rename(temporary, final_path));
  KillPoint("checkpoint.after_rename");
  DDPO_RETURN_IF_ERROR(file_system_->SyncDirectory(dir_));
  return RemoveOld(checkpoint.epochs_done);
}

absl::Time CheckpointStore::TimeWritten(const std::string& name) {
  const auto text = file_system_->Read(JoinPath(JoinPath(dir_, name), kManifest));
  const Json manifest = Json::parse(text.value_or(""), nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains(kTime) || !manifest[kTime].is_number()) {
    return clock_->Now();
  }
  return absl::UnixEpoch() + absl::Seconds(manifest[kTime].get<double>());
}

absl::Status CheckpointStore::RemoveOld(int64_t written) {
  DDPO_ASSIGN_OR_RETURN(std::vector<Saved> older, List());
  std::erase_if(
      older, [&](const Saved& saved) { return !saved.in_place || saved.epochs_done >= written; });
  const absl::Time oldest = clock_->Now() - retention_.max_age;
  for (size_t i = 0; i < older.size(); ++i) {
    const bool counts = older.size() - i < static_cast<size_t>(retention_.keep);
    if (counts && TimeWritten(older[i].name) >= oldest) continue;
    DDPO_RETURN_IF_ERROR(file_system_->RemoveAll(JoinPath(dir_, older[i].name)));
  }
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names());
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, kTemporary) && !absl::StartsWith(name, kOld)) continue;
    DDPO_RETURN_IF_ERROR(file_system_->RemoveAll(JoinPath(dir_, name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckpointStore::NewestEpochs() {
  DDPO_ASSIGN_OR_RETURN(const std::vector<Saved> all, List());
  return all.empty() ? 0 : all.back().epochs_done;
}

std::optional<CheckpointStore::Saved> CheckpointStore::ParseName(const std::string& name) {
  Saved saved{.name = name};
  absl::string_view rest = name;
  saved.in_place = !absl::ConsumePrefix(&rest, kOld);
  if (!absl::ConsumePrefix(&rest, kPrefix) ||
      !std::all_of(rest.begin(), rest.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(rest, &saved.epochs_done)) {
    return std::nullopt;
  }
  return saved;
}

absl::StatusOr<std::vector<CheckpointStore::Saved>> CheckpointStore::List() {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names());
  std::vector<Saved> all;
  for (const std::string& name : names) {
    if (auto saved = ParseName(name)) all.push_back(*std::move(saved));
  }
  // By number, as the order of the names is another one from 100,000 epochs on.
  std::sort(all.begin(), all.end());
  return all;
}

absl::StatusOr<std::vector<std::string>> CheckpointStore::Names() {
  if (!file_system_->Exists(dir_)) return std::vector<std::string>();
  return file_system_->List(dir_);
}

absl::StatusOr<Checkpoint> CheckpointStore::Read(const std::string& name) {
  const std::string folder = JoinPath(dir_, name);
  const std::string manifest_path = JoinPath(folder, kManifest);
  DDPO_ASSIGN_OR_RETURN(const std::string text, file_system_->Read(manifest_path));
  const Json manifest = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("sha256") || !manifest["sha256"].is_object() ||
      !manifest.contains("format") || !manifest["format"].is_number_integer()) {
    return absl::DataLossError(absl::StrCat(manifest_path, ": damaged"));
  }
  if (manifest["format"] != kFormat) {
    return absl::DataLossError(absl::StrCat(manifest_path, ": format ", manifest["format"].dump(),
                                            ", expected ", kFormat));
  }
  std::map<std::string, std::string> files;
  for (const auto& [file, hash] : manifest["sha256"].items()) {
    const std::string path = JoinPath(folder, file);
    DDPO_ASSIGN_OR_RETURN(files[file], file_system_->Read(path));
    if (hash != Sha256Hex(files[file])) {
      return absl::DataLossError(
          absl::StrCat(path, ": the contents do not have the SHA-256 of ", kManifest));
    }
  }
  for (const char* file : {kTrainer, kState, kConfig}) {
    if (!files.contains(file)) {
      return absl::DataLossError(absl::StrCat(manifest_path, ": does not list ", file));
    }
  }
  Checkpoint checkpoint;
  DDPO_RETURN_IF_ERROR(ReadState(JoinPath(folder, kState), files[kState], &checkpoint));
  checkpoint.trainer_state = std::move(files[kTrainer]);
  checkpoint.config_yaml = std::move(files[kConfig]);
  for (auto& [file, contents] : files) {
    if (const auto version = PolicyVersion(file); version.has_value()) {
      checkpoint.policies[*version] = std::move(contents);
    }
  }
  return checkpoint;
}

absl::StatusOr<std::optional<Checkpoint>> CheckpointStore::ReadNewest(
    std::vector<std::string>* warnings) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<Saved> all, List());
  for (auto saved = all.rbegin(); saved != all.rend(); ++saved) {
    auto checkpoint = Read(saved->name);
    if (checkpoint.ok()) return *std::move(checkpoint);
    warnings->push_back(absl::StrCat("checkpoint ", saved->name, " is damaged and passed over: ",
                                     checkpoint.status().message()));
  }
  if (all.empty()) return std::nullopt;
  return absl::DataLossError(absl::StrCat("all ", all.size(), " checkpoints in ", dir_,
                                          " are damaged; the newest: ", warnings->front()));
}

}  // namespace ddpo
