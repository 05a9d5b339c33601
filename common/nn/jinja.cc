#include "common/nn/jinja.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {
namespace {

using Statement = JinjaTemplate::Statement;
using Block = std::vector<Statement>;

// Of blocks in blocks.
constexpr int kMaxDepth = 64;

// A stretch of the source: text, what {{ }} holds or what {% %} holds.
struct Chunk {
  enum Kind { kText, kOutput, kTag };
  Kind kind = kText;
  std::string source;
  int line = 1;
};

absl::Status AtLine(int line, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", status.message()));
}

// Where a tag ends, beyond quotation marks that may hold its closing signs; npos without an end.
size_t FindEnd(const std::string& source, size_t at, const std::string& closing) {
  char quote = 0;
  for (; at < source.size(); ++at) {
    const char c = source[at];
    if (quote != 0) {
      if (c == '\\') {
        ++at;
      } else if (c == quote) {
        quote = 0;
      }
    } else if (source.compare(at, 2, closing) == 0) {
      return at;
    } else if (closing != "#}" && (c == '\'' || c == '"')) {
      quote = c;
    }
  }
  return std::string::npos;
}

// Cuts the source at its tags and takes away the white space that they swallow.
absl::StatusOr<std::vector<Chunk>> CutTags(const std::string& source) {
  std::vector<Chunk> chunks;
  size_t at = 0;
  int line = 1;
  bool trim_left = false, trim_newline = false;
  while (true) {
    size_t open = source.find('{', at);
    while (open != std::string::npos && source.find_first_of("{%#", open + 1) != open + 1) {
      open = source.find('{', open + 1);
    }
    std::string text = source.substr(at, open == std::string::npos ? open : open - at);
    const int text_line = line;
    line += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    const bool line_start = at == 0 || (trim_newline && absl::StartsWith(text, "\n"));
    if (trim_left) {
      text = StripLeftAsPython(text);
    } else if (trim_newline && absl::StartsWith(text, "\n")) {
      text.erase(0, 1);
    }
    if (open == std::string::npos) {
      // Jinja drops one newline at the end of a template.
      if (absl::EndsWith(text, "\n")) text.pop_back();
      chunks.push_back({Chunk::kText, std::move(text), text_line});
      return chunks;
    }
    const char kind = source[open + 1];
    const std::string closing = kind == '{' ? "}}" : std::string{kind, '}'};
    const size_t end = FindEnd(source, open + 2, closing);
    if (end == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": `{", std::string(1, kind), "` without its end"));
    }
    std::string inner = source.substr(open + 2, end - open - 2);
    const bool strip_before = absl::StartsWith(inner, "-");
    const bool keep_before = absl::StartsWith(inner, "+");
    if (strip_before || keep_before) inner.erase(0, 1);
    trim_left = absl::EndsWith(inner, "-");
    if (trim_left) inner.pop_back();
    if (strip_before) {
      text = StripRightAsPython(text);
    } else if (kind != '{' && !keep_before) {
      const size_t blank = text.find_last_not_of(" \t") + 1;
      if (blank == 0 ? line_start : text[blank - 1] == '\n') text.resize(blank);
    }
    trim_newline = kind != '{';
    if (!text.empty()) chunks.push_back({Chunk::kText, std::move(text), text_line});
    if (kind != '#') {
      chunks.push_back({kind == '{' ? Chunk::kOutput : Chunk::kTag, inner, line});
    }
    line += static_cast<int>(std::count(inner.begin(), inner.end(), '\n'));
    at = end + 2;
  }
}

absl::Status Run(const Block& block, JinjaScope& scope, std::string* out) {
  for (const Statement& statement : block) DDPO_RETURN_IF_ERROR(statement(scope, out));
  return absl::OkStatus();
}

struct Loop {
  std::string name;
  JinjaExpression list;
  std::optional<JinjaExpression> condition;
  Block body;
};

absl::Status RunLoop(const Loop& loop, const JinjaScope& scope, std::string* out) {
  DDPO_ASSIGN_OR_RETURN(const JinjaValue list, loop.list(scope));
  if (!list.is_array()) return absl::InvalidArgumentError("a loop over what is not a list");
  std::vector<JinjaValue> items;
  // What a loop sets is gone after it.
  JinjaScope inner = scope;
  for (const JinjaValue& item : list) {
    inner[loop.name] = item;
    if (loop.condition.has_value()) {
      DDPO_ASSIGN_OR_RETURN(const JinjaValue wanted, (*loop.condition)(inner));
      if (!JinjaTruth(wanted)) continue;
    }
    items.push_back(item);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    JinjaScope round = scope;
    round[loop.name] = items[i];
    round["loop"] = {{"index", i + 1},
                     {"index0", i},
                     {"first", i == 0},
                     {"last", i + 1 == items.size()},
                     {"length", items.size()}};
    DDPO_RETURN_IF_ERROR(Run(loop.body, round, out));
  }
  return absl::OkStatus();
}

class BlockParser {
 public:
  explicit BlockParser(std::vector<Chunk> chunks) : chunks_(std::move(chunks)) {}

  // Statements up to a tag that begins with one of these words, which is left; to the end of the
  // template where there are none.
  absl::StatusOr<Block> Parse(std::initializer_list<absl::string_view> ends) {
    if (++depth_ > kMaxDepth) return absl::InvalidArgumentError("too many blocks in blocks");
    Block block;
    while (at_ < chunks_.size()) {
      const Chunk& chunk = chunks_[at_];
      if (chunk.kind == Chunk::kTag) {
        const std::string word = Word(chunk);
        if (std::find(ends.begin(), ends.end(), word) != ends.end()) {
          --depth_;
          return block;
        }
      }
      ++at_;
      absl::StatusOr<Statement> statement = ParseChunk(chunk);
      if (!statement.ok()) return NameLine(chunk, statement.status());
      block.push_back(
          [run = *std::move(statement), line = chunk.line](JinjaScope& scope, std::string* out) {
            const absl::Status status = run(scope, out);
            return absl::StartsWith(status.message(), "line ") ? status : AtLine(line, status);
          });
    }
    if (ends.size() > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the template ends where `", *(ends.end() - 1), "` was expected"));
    }
    --depth_;
    return block;
  }

 private:
  static absl::Status NameLine(const Chunk& chunk, const absl::Status& status) {
    return absl::StartsWith(status.message(), "line ") ? status : AtLine(chunk.line, status);
  }

  static std::string Word(const Chunk& chunk) {
    const absl::string_view source = absl::StripLeadingAsciiWhitespace(chunk.source);
    size_t end = 0;
    while (end < source.size() && absl::ascii_isalpha(static_cast<unsigned char>(source[end]))) {
      ++end;
    }
    return std::string(source.substr(0, end));
  }

  absl::StatusOr<Statement> ParseChunk(const Chunk& chunk) {
    if (chunk.kind == Chunk::kText) {
      return Statement([text = chunk.source](JinjaScope&, std::string* out) {
        *out += text;
        return absl::OkStatus();
      });
    }
    DDPO_ASSIGN_OR_RETURN(std::vector<JinjaToken> tokens, JinjaTokens(chunk.source));
    JinjaParser parser(std::move(tokens));
    if (chunk.kind == Chunk::kOutput) return ParseOutput(parser);
    if (parser.TakeIf("if")) return ParseIf(parser);
    if (parser.TakeIf("for")) return ParseFor(parser);
    if (parser.TakeIf("set")) return ParseSet(parser);
    if (parser.TakeIf("generation")) return ParseGeneration(parser);
    return absl::InvalidArgumentError(
        absl::StrCat("the tag `", parser.peek().text, "` is not supported here"));
  }

  static absl::StatusOr<Statement> ParseOutput(JinjaParser& parser) {
    DDPO_ASSIGN_OR_RETURN(const JinjaExpression value, parser.Expression());
    DDPO_RETURN_IF_ERROR(parser.ExpectEnd());
    return Statement([value](JinjaScope& scope, std::string* out) -> absl::Status {
      DDPO_ASSIGN_OR_RETURN(const JinjaValue result, value(scope));
      DDPO_ASSIGN_OR_RETURN(const std::string text, JinjaText(result));
      *out += text;
      return absl::OkStatus();
    });
  }

  absl::StatusOr<Statement> ParseIf(JinjaParser& parser) {
    DDPO_ASSIGN_OR_RETURN(const JinjaExpression condition, parser.Expression());
    DDPO_RETURN_IF_ERROR(parser.ExpectEnd());
    DDPO_ASSIGN_OR_RETURN(const Block then, Parse({"elif", "else", "endif"}));
    Block otherwise;
    const Chunk& next = chunks_[at_++];
    DDPO_ASSIGN_OR_RETURN(std::vector<JinjaToken> tokens, JinjaTokens(next.source));
    JinjaParser rest(std::move(tokens));
    if (rest.TakeIf("elif")) {
      DDPO_ASSIGN_OR_RETURN(otherwise.emplace_back(), ParseIf(rest));
    } else if (rest.TakeIf("else")) {
      DDPO_ASSIGN_OR_RETURN(otherwise, Parse({"endif"}));
      ++at_;
    }
    return Statement([=](JinjaScope& scope, std::string* out) -> absl::Status {
      DDPO_ASSIGN_OR_RETURN(const JinjaValue result, condition(scope));
      return Run(JinjaTruth(result) ? then : otherwise, scope, out);
    });
  }

  absl::StatusOr<Statement> ParseFor(JinjaParser& parser) {
    Loop loop;
    loop.name = parser.Take().text;
    DDPO_RETURN_IF_ERROR(parser.Expect("in"));
    DDPO_ASSIGN_OR_RETURN(loop.list, parser.Or());
    if (parser.TakeIf("if")) {
      DDPO_ASSIGN_OR_RETURN(loop.condition, parser.Expression());
    }
    DDPO_RETURN_IF_ERROR(parser.ExpectEnd());
    DDPO_ASSIGN_OR_RETURN(loop.body, Parse({"endfor"}));
    ++at_;
    return Statement(
        [loop](JinjaScope& scope, std::string* out) { return RunLoop(loop, scope, out); });
  }

  static absl::StatusOr<Statement> ParseSet(JinjaParser& parser) {
    const std::string name = parser.Take().text;
    DDPO_RETURN_IF_ERROR(parser.Expect("="));
    DDPO_ASSIGN_OR_RETURN(const JinjaExpression value, parser.Expression());
    DDPO_RETURN_IF_ERROR(parser.ExpectEnd());
    return Statement([=](JinjaScope& scope, std::string*) -> absl::Status {
      DDPO_ASSIGN_OR_RETURN(scope[name], value(scope));
      return absl::OkStatus();
    });
  }

  // transformers marks so what the model said; it changes nothing of the text.
  absl::StatusOr<Statement> ParseGeneration(JinjaParser& parser) {
    DDPO_RETURN_IF_ERROR(parser.ExpectEnd());
    DDPO_ASSIGN_OR_RETURN(const Block body, Parse({"endgeneration"}));
    ++at_;
    return Statement([body](JinjaScope& scope, std::string* out) { return Run(body, scope, out); });
  }

  const std::vector<Chunk> chunks_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<JinjaTemplate> JinjaTemplate::Parse(const std::string& source) {
  DDPO_ASSIGN_OR_RETURN(std::vector<Chunk> chunks, CutTags(source));
  JinjaTemplate result;
  DDPO_ASSIGN_OR_RETURN(result.statements_, BlockParser(std::move(chunks)).Parse({}));
  return result;
}

absl::StatusOr<std::string> JinjaTemplate::Render(const JinjaScope& variables) const {
  JinjaScope scope = variables;
  std::string out;
  DDPO_RETURN_IF_ERROR(Run(statements_, scope, &out));
  return out;
}

}  // namespace ddpo
