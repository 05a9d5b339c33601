#include "reward_server/judges/chat_endpoint_judge.h"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/tensors/png.h"

namespace ddpo {
namespace {

struct HttpAnswer {
  long code = 0;
  std::string body;
  absl::Duration retry_after = absl::ZeroDuration();
  bool too_large = false;
  size_t limit = 0;
};

size_t TakeBody(char* data, size_t size, size_t count, void* user) {
  auto* answer = static_cast<HttpAnswer*>(user);
  if (answer->body.size() + size * count > answer->limit) {
    answer->too_large = true;
    return 0;
  }
  answer->body.append(data, size * count);
  return size * count;
}

size_t TakeHeader(char* data, size_t size, size_t count, void* user) {
  const std::string line(data, size * count);
  int seconds = 0;
  if (absl::StartsWithIgnoreCase(line, "retry-after:") &&
      absl::SimpleAtoi(absl::StripAsciiWhitespace(line.substr(12)), &seconds) && seconds >= 0) {
    static_cast<HttpAnswer*>(user)->retry_after = absl::Seconds(std::min(seconds, 60));
  }
  return size * count;
}

absl::StatusCode CodeOf(long http_code) {
  switch (http_code) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    default:
      return http_code >= 500 ? absl::StatusCode::kUnavailable : absl::StatusCode::kInvalidArgument;
  }
}

bool WorthAnotherTry(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsDeadlineExceeded(status);
}

// What curl keeps of a connection between requests. Used by one thread at a time.
using Connection = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

class ChatEndpointJudge : public ImageJudge {
 public:
  ChatEndpointJudge(ChatEndpointOptions options, std::string key)
      : options_(std::move(options)),
        url_(absl::StrCat(absl::StripSuffix(options_.base_url, "/"), "/chat/completions")),
        key_(std::move(key)) {}

  std::string digest() const override {
    return Sha256Hex(absl::StrCat("chat endpoint 1 ", options_.base_url, " ", options_.model));
  }
  // Each question is a request of its own.
  int max_batch_size() const override { return options_.max_parallel_requests; }

  std::vector<absl::StatusOr<std::string>> Answer(
      absl::Span<const ImageQuestion> questions) override {
    std::vector<absl::StatusOr<std::string>> replies(questions.size());
    std::atomic<size_t> next = 0;
    const auto ask = [&] {
      Connection connection = TakeConnection();
      for (size_t i; (i = next.fetch_add(1)) < questions.size();) {
        replies[i] = AnswerOne(questions[i], connection.get());
      }
      GiveBack(std::move(connection));
    };
    const size_t parallel =
        std::min(questions.size(), static_cast<size_t>(options_.max_parallel_requests));
    std::vector<std::thread> threads;
    for (size_t i = 1; i < parallel; ++i) threads.emplace_back(ask);
    ask();
    for (std::thread& thread : threads) thread.join();
    return replies;
  }

 private:
  Connection TakeConnection() {
    absl::MutexLock lock(&mu_);
    if (idle_.empty()) return {curl_easy_init(), &curl_easy_cleanup};
    Connection connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
  }

  void GiveBack(Connection connection) {
    absl::MutexLock lock(&mu_);
    idle_.push_back(std::move(connection));
  }

  absl::StatusOr<std::string> AnswerOne(const ImageQuestion& question, CURL* curl) const {
    DDPO_ASSIGN_OR_RETURN(const auto png, EncodePng(*question.image));
    const std::string image_url = absl::StrCat(
        "data:image/png;base64,", absl::Base64Escape(absl::string_view(
                                      reinterpret_cast<const char*>(png.data()), png.size())));
    const nlohmann::json request = {
        {"model", options_.model},
        {"temperature", 0},
        {"max_tokens", question.max_new_tokens},
        {"messages",
         {{{"role", "user"},
           {"content",
            {{{"type", "text"}, {"text", question.text}},
             {{"type", "image_url"}, {"image_url", {{"url", image_url}}}}}}}}}};
    const std::string body = request.dump();
    absl::Duration delay = options_.retry_delay;
    for (int attempt = 0;; ++attempt) {
      HttpAnswer answer;
      absl::StatusOr<std::string> reply = Post(body, curl, &answer);
      if (reply.ok() || !WorthAnotherTry(reply.status()) || attempt >= options_.max_retries) {
        return reply;
      }
      absl::SleepFor(std::max(delay, answer.retry_after));
      delay *= 2;
    }
  }

  absl::StatusOr<std::string> Post(const std::string& body, CURL* curl, HttpAnswer* answer) const {
    answer->limit = options_.max_response_bytes;
    curl_easy_reset(curl);
    curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
    if (!key_.empty()) {
      headers = curl_slist_append(headers, absl::StrCat("Authorization: Bearer ", key_).c_str());
    }
    const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> owned_headers(
        headers, &curl_slist_free_all);
    curl_easy_setopt(curl, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.c_str());
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(absl::ToInt64Milliseconds(options_.timeout)));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &TakeBody);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &TakeHeader);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
    const CURLcode result = curl_easy_perform(curl);
    if (answer->too_large) {
      return absl::InternalError(
          absl::StrCat(url_, ": the answer has more than ", answer->limit, " bytes"));
    }
    if (result == CURLE_OPERATION_TIMEDOUT) {
      return absl::DeadlineExceededError(
          absl::StrCat(url_, ": no answer within ", absl::FormatDuration(options_.timeout)));
    }
    if (result != CURLE_OK) {
      return absl::UnavailableError(absl::StrCat(url_, ": ", curl_easy_strerror(result)));
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->code);
    if (answer->code < 200 || answer->code >= 300) {
      return absl::Status(CodeOf(answer->code),
                          absl::StrCat(url_, ": HTTP ", answer->code, ": ",
                                       absl::CHexEscape(answer->body.substr(0, 300))));
    }
    return ReplyOf(answer->body);
  }

  absl::StatusOr<std::string> ReplyOf(const std::string& body) const {
    const nlohmann::json json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
    const auto content = nlohmann::json::json_pointer("/choices/0/message/content");
    if (json.is_discarded() || !json.is_object() || !json.contains(content) ||
        !json[content].is_string()) {
      return absl::InternalError(absl::StrCat(url_,
                                              ": the answer has no choices[0].message.content: ",
                                              absl::CHexEscape(body.substr(0, 300))));
    }
    return json[content].get<std::string>();
  }

  const ChatEndpointOptions options_;
  const std::string url_;
  const std::string key_;
  absl::Mutex mu_;
  std::vector<Connection> idle_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<ImageJudge>> CreateChatEndpointJudge(
    const ChatEndpointOptions& options) {
  if (!absl::StartsWith(options.base_url, "http://") &&
      !absl::StartsWith(options.base_url, "https://")) {
    return absl::InvalidArgumentError(absl::StrCat("chat endpoint: base_url `", options.base_url,
                                                   "`: expected http://… or https://…"));
  }
  if (options.model.empty()) {
    return absl::InvalidArgumentError("chat endpoint: the model's name is missing");
  }
  // Once, before threads use it.
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (initialized != CURLE_OK) {
    return absl::InternalError(absl::StrCat("libcurl: ", curl_easy_strerror(initialized)));
  }
  std::string key;
  if (!options.api_key_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(key, ReadFile(options.api_key_file));
    key = std::string(absl::StripAsciiWhitespace(key.substr(0, key.find('\n'))));
    if (key.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(options.api_key_file, ": the first line holds no key"));
    }
  }
  return std::make_unique<ChatEndpointJudge>(options, std::move(key));
}

}  // namespace ddpo
