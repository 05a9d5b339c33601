#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function with the expression's status unless it is OK.
#define DDPO_RETURN_IF_ERROR(expression)                                                \
  do {                                                                                  \
    if (absl::Status ddpo_status = (expression); !ddpo_status.ok()) return ddpo_status; \
  } while (false)

// DDPO_ASSIGN_OR_RETURN(auto value, Function()): assigns the value of a StatusOr, or returns its
// status from the enclosing function.
#define DDPO_ASSIGN_OR_RETURN(target, expression) \
  DDPO_ASSIGN_OR_RETURN_IMPL(DDPO_STATUS_CONCAT(ddpo_statusor_, __LINE__), target, expression)

#define DDPO_ASSIGN_OR_RETURN_IMPL(statusor, target, expression) \
  auto statusor = (expression);                                  \
  if (!statusor.ok()) return std::move(statusor).status();       \
  target = *std::move(statusor)

#define DDPO_STATUS_CONCAT(a, b) DDPO_STATUS_CONCAT_IMPL(a, b)
#define DDPO_STATUS_CONCAT_IMPL(a, b) a##b
