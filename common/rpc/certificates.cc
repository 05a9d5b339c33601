#include "common/rpc/certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Freer<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;

Bio MemoryBio(const std::string& bytes) {
  return Bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

absl::StatusOr<std::vector<Certificate>> ParseCertificates(const std::string& pem,
                                                           const std::string& file) {
  const Bio bio = MemoryBio(pem);
  std::vector<Certificate> certificates;
  while (Certificate next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    certificates.push_back(std::move(next));
  }
  // The end of the file, too, leaves an error.
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  if (certificates.empty() || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": expected certificates in PEM format, got ",
        certificates.empty() ? "none" : "one that can't be read after those that can"));
  }
  return certificates;
}

struct PemPair {
  std::string certificate;
  std::string private_key;
};

// Of one time, where both files are replaced by one step while they are read.
absl::StatusOr<PemPair> ReadPair(const std::string& certificate_file,
                                 const std::string& private_key_file) {
  constexpr int kAttempts = 10;
  PemPair pair;
  for (int i = 0; i < kAttempts; ++i) {
    DDPO_ASSIGN_OR_RETURN(pair.certificate, ReadFile(certificate_file));
    DDPO_ASSIGN_OR_RETURN(pair.private_key, ReadFile(private_key_file));
    DDPO_ASSIGN_OR_RETURN(const std::string again, ReadFile(certificate_file));
    if (again == pair.certificate) break;
  }
  return pair;
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm utc{};
  ASN1_TIME_to_tm(time, &utc);
  return absl::FromTM(utc, absl::UTCTimeZone());
}

absl::Status CheckValidity(const X509* certificate, const std::string& file, absl::Time now) {
  const absl::Time from = ToTime(X509_get0_notBefore(certificate));
  const absl::Time to = ToTime(X509_get0_notAfter(certificate));
  if (now < from) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the certificate is not valid before ",
                                                   absl::FormatTime(from, absl::UTCTimeZone())));
  }
  if (now > to) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the certificate expired on ",
                                                   absl::FormatTime(to, absl::UTCTimeZone())));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckKeyPair(const std::string& certificate_file, const std::string& private_key_file,
                          absl::Time now) {
  DDPO_ASSIGN_OR_RETURN(const PemPair pair, ReadPair(certificate_file, private_key_file));
  DDPO_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                        ParseCertificates(pair.certificate, certificate_file));
  // Without a callback OpenSSL would ask the terminal for an encrypted key's password.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  const Key key(
      PEM_read_bio_PrivateKey(MemoryBio(pair.private_key).get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(private_key_file, ": expected a private key in PEM format, not encrypted"));
  }
  const bool fits = X509_check_private_key(chain[0].get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        private_key_file, ": the key does not belong to the certificate ", certificate_file));
  }
  return CheckValidity(chain[0].get(), certificate_file, now);
}

absl::Status CheckAuthorities(const std::string& file, absl::Time now) {
  DDPO_ASSIGN_OR_RETURN(const std::string pem, ReadFile(file));
  DDPO_ASSIGN_OR_RETURN(const std::vector<Certificate> authorities, ParseCertificates(pem, file));
  absl::Status last;
  for (const Certificate& authority : authorities) {
    last = CheckValidity(authority.get(), file, now);
    if (last.ok()) break;
  }
  return last;
}

}  // namespace ddpo
