# Sourced by bash before each of the suites' scripts (BASH_ENV). It keeps a script going where it would give up, so that
# one failure does not hide the cases after it, and keeps it from changing the machine.

# A server that did not start has the number 0, which to `kill` is the script's whole process group.
kill() {
    local argument
    for argument in "$@"; do [ "$argument" = 0 ] && return 1; done
    builtin kill "$@"
}

exit() {
    [ "${1:-0}" = 0 ] || return "$1"
    builtin exit 0
}

set() {
    [ "$*" = -e ] || builtin set "$@"
}

pip() { :; }
pip3() { :; }
apt() { :; }
apt-get() { :; }
ldconfig() { :; }
gdb() { :; }
nvidia-smi() { return 1; }

if [ -n "$QA_LIST" ]; then
    sleep() { command sleep 0.02; }
fi
