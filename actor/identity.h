#pragma once

#include <cstdint>
#include <string>

namespace ddpo {

// Who an actor is to the learner, on every call.
struct ActorIdentity {
  std::string actor_id;
  uint64_t incarnation = 0;  // random for each start of the process
  uint64_t generation = 0;   // the learner's, as Register said
};

// Writes the identity into a request.
template <typename Request>
void Identify(const ActorIdentity& identity, Request* request) {
  request->set_actor_id(identity.actor_id);
  request->set_incarnation(identity.incarnation);
  request->set_generation(identity.generation);
}

}  // namespace ddpo
