#include "common/rpc/tokens.h"

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "alice-0123456789";
constexpr char kBob[] = "bob-0123456789abcdef";

class TokensTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& contents) {
    EXPECT_TRUE(WriteFileAtomically(dir_ / "tokens", contents).ok());
    return dir_ / "tokens";
  }
  std::string ErrorOf(const std::string& contents) {
    const absl::Status status = TokenList::Load(Write(contents)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  testing::TempDir dir_;
};

TEST_F(TokensTest, KnowsEachTokenByItsName) {
  const auto list =
      TokenList::Load(Write(absl::StrCat("# who\n\n", kAlice, " alice\r\n  ", kBob, "  \n")));
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(*(*list)->Authenticate(kAlice), "alice");
  EXPECT_EQ(*(*list)->Authenticate(kBob), "line 4");
}

TEST_F(TokensTest, KnowsNothingElse) {
  const auto list = TokenList::Load(Write(absl::StrCat(kAlice, " alice\n")));
  ASSERT_TRUE(list.ok()) << list.status();
  for (const std::string token :
       {"", "alice", "alice-012345678", "alice-01234567890", "# who", "Alice-0123456789"}) {
    EXPECT_EQ((*list)->Authenticate(token).status().code(), absl::StatusCode::kUnauthenticated)
        << token;
  }
}

TEST_F(TokensTest, NamesTheLineThatIsMalformedWithoutTheToken) {
  EXPECT_THAT(ErrorOf(absl::StrCat(kAlice, "\nshort\n")),
              AllOf(HasSubstr("tokens:2: expected a token of 16 characters or more"),
                    Not(HasSubstr("short"))));
  EXPECT_THAT(ErrorOf(absl::StrCat(kAlice, " alice of wonderland\n")),
              AllOf(HasSubstr("tokens:1:"), Not(HasSubstr(kAlice))));
  EXPECT_THAT(ErrorOf("# nobody yet\n"), HasSubstr("no line holds one"));
  EXPECT_TRUE(absl::IsNotFound(TokenList::Load(dir_ / "absent").status()));
}

TEST_F(TokensTest, ChangesCountFromTheNextCallOn) {
  const auto list = TokenList::Load(Write(absl::StrCat(kAlice, "\n")));
  ASSERT_TRUE(list.ok()) << list.status();
  Write(absl::StrCat(kBob, "\n"));
  EXPECT_TRUE((*list)->Authenticate(kBob).ok());
  EXPECT_FALSE((*list)->Authenticate(kAlice).ok());
}

TEST_F(TokensTest, AChangeForTheWorseLeavesTheLastGoodOnes) {
  const auto list = TokenList::Load(Write(absl::StrCat(kAlice, "\n")));
  ASSERT_TRUE(list.ok()) << list.status();
  Write("short\n");
  EXPECT_TRUE((*list)->Authenticate(kAlice).ok());
  EXPECT_FALSE((*list)->Authenticate("short").ok());
  ASSERT_TRUE(FileSystem::Real()->RemoveAll(dir_ / "tokens").ok());
  EXPECT_TRUE((*list)->Authenticate(kAlice).ok());
  Write(absl::StrCat(kBob, "\n"));
  EXPECT_TRUE((*list)->Authenticate(kBob).ok());
}

TEST_F(TokensTest, AClientShowsTheFirstWordOfItsFileAsItIsNow) {
  const auto token = ClientToken::Load(Write(absl::StrCat("\n ", kAlice, " alice\n", kBob, "\n")));
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ((*token)->Get(), kAlice);
  Write(kBob);
  EXPECT_EQ((*token)->Get(), kBob);
  Write("");
  EXPECT_EQ((*token)->Get(), kBob);
}

TEST_F(TokensTest, AClientsTokenIsWhatAHeaderCanCarry) {
  EXPECT_THAT(std::string(ClientToken::Load(Write(" \n")).status().message()),
              HasSubstr("tokens: expected a bearer token"));
  EXPECT_THAT(std::string(ClientToken::Load(Write("schlüssel\n")).status().message()),
              HasSubstr("printable ASCII"));
}

}  // namespace
}  // namespace ddpo
