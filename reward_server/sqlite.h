#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ddpo {

// A prepared SQL statement. Parameters and columns count from 1 and from 0, as SQLite's do.
class SqliteStatement {
 public:
  explicit SqliteStatement(sqlite3_stmt* statement);
  ~SqliteStatement();
  SqliteStatement(SqliteStatement&& other) noexcept;
  SqliteStatement& operator=(SqliteStatement&&) = delete;

  SqliteStatement& Bind(int parameter, int64_t value);
  // The bytes are copied.
  SqliteStatement& BindText(int parameter, absl::string_view value);
  SqliteStatement& BindBlob(int parameter, absl::string_view value);

  // True if there is a row, false at the end.
  absl::StatusOr<bool> Step();
  // Steps to the end and makes the statement ready for other parameters.
  absl::Status Run();
  void Reset();

  int64_t Int(int column) const;
  // Text or a blob; empty for NULL.
  std::string Bytes(int column) const;
  bool IsNull(int column) const;

 private:
  sqlite3_stmt* statement_;
  absl::Status bind_error_;
};

// One connection to a database file. One thread at a time uses it.
class SqliteDatabase {
 public:
  // Creates the file if it is not there. WAL, and synced at each commit, so that what was committed
  // survives the process and the machine. UNAVAILABLE when another process writes to it for long.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path);
  ~SqliteDatabase();

  absl::StatusOr<SqliteStatement> Prepare(absl::string_view sql);
  // Statements without parameters or rows, separated by semicolons.
  absl::Status Execute(const std::string& sql);
  // Rows that the last statement changed.
  int64_t changes() const;

 private:
  explicit SqliteDatabase(sqlite3* database) : database_(database) {}

  sqlite3* const database_;
};

// BEGIN IMMEDIATE; rolls back unless Commit succeeds.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteDatabase* database);
  ~SqliteTransaction();
  SqliteTransaction(SqliteTransaction&& other) noexcept;
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;

  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase* database) : database_(database) {}

  SqliteDatabase* database_;
};

}  // namespace ddpo
