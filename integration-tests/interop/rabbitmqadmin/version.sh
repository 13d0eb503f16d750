# shellcheck shell=bash
# shellcheck disable=SC2034 # read where this is sourced
version=2.29.0
