#!/usr/bin/env bash
# Gathers what the programs need to run: stripped programs, LibTorch's libraries, and the names of
# the packages that hold the other ones. Called by the Dockerfile.
#
#   collect.sh PROGRAMS_DIR LIBTORCH_LIB_DIR TO
set -euo pipefail
programs=$1 torch=$(readlink -f "$2") to=$3
mkdir -p "$to/bin" "$to/lib"
for program in ddpo ddpo-learner ddpo-actor ddpo-reward-server ddpo-health; do
  strip -o "$to/bin/$program" "$programs/$program"
done
declare -A packages
while read -r library; do
  case $(readlink -f "$(dirname "$library")") in
    "$torch") cp -Lu "$library" "$to/lib/" ;;
    *)
      # dpkg knows a file by one of its two names where /lib is a link to /usr/lib.
      owner=$(dpkg-query -S "$(readlink -f "$library")" 2>/dev/null ||
        dpkg-query -S "/lib/${library#*/lib/}")
      packages[${owner%%:*}]=1
      ;;
  esac
done < <(for program in "$programs"/ddpo "$programs"/ddpo-*; do
  LD_LIBRARY_PATH=$torch ldd "$program"
done | sort -u | awk '
  /=> not found/ {print "no library " $1 > "/dev/stderr"; exit 1}
  / => \// {print $3}' | sort -u)
packages[ca-certificates]=1
printf '%s\n' "${!packages[@]}" | sort >"$to/packages.txt"
