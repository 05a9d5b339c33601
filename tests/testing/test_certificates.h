#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ddpo::testing {

// A certificate authority that lives as long as its test.
class TestAuthority {
 public:
  struct Leaf {
    // Subject alternative names, as in `DNS:localhost,IP:127.0.0.1`.
    std::string names = "DNS:localhost,IP:127.0.0.1";
    absl::Time from = absl::Now() - absl::Hours(1);
    absl::Time to = absl::Now() + absl::Hours(24);
  };

  // Writes NAME.crt into the folder.
  TestAuthority(const std::string& folder, const std::string& name)
      : folder_(folder), file_(absl::StrCat(folder, "/", name, ".crt")), key_(EVP_EC_gen("P-256")) {
    certificate_ =
        NewCertificate(name, absl::Now() - absl::Hours(1), absl::Now() + absl::Hours(24), key_);
    X509_set_issuer_name(certificate_, X509_get_subject_name(certificate_));
    AddExtension(certificate_, NID_basic_constraints, "critical,CA:TRUE");
    AddExtension(certificate_, NID_key_usage, "critical,keyCertSign,cRLSign");
    EXPECT_GT(X509_sign(certificate_, key_, EVP_sha256()), 0);
    Write(file_, [this](std::FILE* out) { PEM_write_X509(out, certificate_); });
  }
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  TestAuthority(const TestAuthority&) = delete;

  // The authority's own certificate.
  const std::string& file() const { return file_; }

  // Writes NAME.crt and NAME.key into the folder, good for servers and clients; each replaces what
  // was there in one step.
  void Issue(const std::string& name) { Issue(name, Leaf()); }
  void Issue(const std::string& name, const Leaf& leaf) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = NewCertificate(name, leaf.from, leaf.to, key);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate_));
    AddExtension(certificate, NID_subject_alt_name, leaf.names);
    AddExtension(certificate, NID_ext_key_usage, "serverAuth,clientAuth");
    EXPECT_GT(X509_sign(certificate, key_, EVP_sha256()), 0);
    Write(absl::StrCat(folder_, "/", name, ".crt"),
          [&](std::FILE* out) { PEM_write_X509(out, certificate); });
    Write(absl::StrCat(folder_, "/", name, ".key"), [&](std::FILE* out) {
      PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
    });
    X509_free(certificate);
    EVP_PKEY_free(key);
  }

 private:
  static X509* NewCertificate(const std::string& name, absl::Time from, absl::Time to,
                              EVP_PKEY* key) {
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    uint64_t serial = 0;
    RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial);
    ASN1_TIME_set(X509_getm_notBefore(certificate), absl::ToTimeT(from));
    ASN1_TIME_set(X509_getm_notAfter(certificate), absl::ToTimeT(to));
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_pubkey(certificate, key);
    return certificate;
  }
  static void AddExtension(X509* certificate, int nid, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
    ASSERT_NE(extension, nullptr) << value;
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  template <typename Print>
  static void Write(const std::string& path, const Print& print) {
    std::FILE* out = std::fopen((path + ".new").c_str(), "w");
    ASSERT_NE(out, nullptr) << path;
    print(out);
    std::fclose(out);
    std::filesystem::rename(path + ".new", path);
  }

  const std::string folder_;
  const std::string file_;
  EVP_PKEY* const key_;
  X509* certificate_ = nullptr;
};

}  // namespace ddpo::testing
