// Real processes that speak mutual TLS, with tokens for the rewards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/cluster/process_cluster.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using testing::ProcessCluster;
using testing::TempDir;

std::string Config() {
  return absl::StrCat("model: ", testing::SourcePath("tests/goldens/pipelines/tiny"), R"(
reward: jpeg_compressibility
prompts: {list: [a cat, a dog, a horse]}
run: {name: tls, epochs: 5, seed: 11, save_every: 5}
cluster: {threads_per_process: 1, lease_seconds: 2}
sampling: {num_steps: 3, batch_size: 2, samples_per_epoch: 12}
training: {learning_rate: 3e-3, minibatch_size: 2, clip_range: 1e-3}
)");
}

// Makes the certificates, or new ones for all.
void MakeCertificates(const TempDir& dir) {
  auto process = Subprocess::Start(
      {.argv = {testing::SourcePath("deploy/tls/make-local-ca"), dir / "tls", "--server", "learner",
                "--server", "reward", "--client", "actor", "--renew-before", "100"},
       .log_file = dir / "make-local-ca.log"});
  ASSERT_TRUE(process.ok()) << process.status();
  ASSERT_TRUE((*process)->Wait()->ok()) << ReadFile(dir / "make-local-ca.log").value_or("");
}

void Prepare(const TempDir& dir) {
  MakeCertificates(dir);
  ASSERT_TRUE(WriteFileAtomically(dir / "tokens", "0123456789abcdef actors\n").ok());
  ASSERT_TRUE(WriteFileAtomically(dir / "token", "0123456789abcdef\n").ok());
}

ProcessCluster::Flags SecureFlags() {
  const auto with_certificate = [](const std::string& name, std::vector<std::string> more) {
    std::vector<std::string> flags = {"--tls-cert", "{}/tls/" + name + "/tls.crt", "--tls-key",
                                      "{}/tls/" + name + "/tls.key"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  };
  return {{"learner", with_certificate("learner", {"--tls-client-ca", "{}/tls/ca.crt"})},
          {"reward", with_certificate("reward", {"--tls-client-ca", "{}/tls/ca.crt",
                                                 "--tokens-file", "{}/tokens"})},
          {"actor",
           with_certificate("actor", {"--tls-ca", "{}/tls/ca.crt", "--token-file", "{}/token"})}};
}

TEST(TlsClusterTest, CertificatesRotatedDuringARunLoseNoTrajectoryAndChangeNoBit) {
  std::string plain_text;
  {
    ProcessCluster cluster(Config());
    cluster.StartActor("actor-0");
    EXPECT_TRUE(cluster.Wait("learner").ok());
    plain_text = cluster.FinalLora();
  }
  ProcessCluster cluster(Config(), SecureFlags(), Prepare);
  cluster.StartActor("actor-0");
  cluster.StartActor("actor-1");
  for (size_t epoch = 1; epoch <= 3; ++epoch) {
    cluster.WaitForEpochs(epoch);
    MakeCertificates(cluster.dir());
  }
  EXPECT_TRUE(cluster.Wait("learner").ok());
  EXPECT_TRUE(cluster.Wait("actor-0").ok());
  EXPECT_EQ(cluster.FinalLora(), plain_text);
  const auto ledger = nlohmann::json::parse(cluster.Metrics().back())["ledger"];
  EXPECT_EQ(ledger["trained"], 60);
  EXPECT_EQ(ledger["received"], 60);
  EXPECT_TRUE(ledger["dropped"].empty()) << ledger;
}

TEST(TlsClusterTest, AnActorThatSpeaksPlainTextIsToldAndGivesUp) {
  ProcessCluster::Flags flags = SecureFlags();
  flags["actor"] = {"--give-up-seconds", "0.3"};
  ProcessCluster cluster(Config(), flags, Prepare);
  cluster.StartActor("actor-0");
  EXPECT_EQ(cluster.Wait("actor-0").code, 1);
  EXPECT_THAT(cluster.Log("actor-0"),
              HasSubstr("the server there speaks TLS, this client plain text"));
}

TEST(TlsClusterTest, AnActorWithoutTheRewardServersTokenSaysSo) {
  ProcessCluster::Flags flags = SecureFlags();
  flags["actor"].resize(flags["actor"].size() - 2);
  ProcessCluster cluster(Config(), flags, Prepare);
  cluster.StartActor("actor-0");
  cluster.WaitForLog("actor-0", "this server needs a bearer token");
}

}  // namespace
}  // namespace ddpo
