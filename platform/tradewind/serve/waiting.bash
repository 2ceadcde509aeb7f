# Every bash of a Ray image reads this before its command (BASH_ENV). KubeRay lets a pod wait for Ray's head in a loop of
# bash, and process 1 of a container heeds no signal that it has no trap for: a pod that is taken away while it waits
# would stay for as long as one that drains may, which is hours. And a trap waits for the command in front, which asks a
# head that is not there for half a minute: so commands run behind, and are waited for.
case ${BASH_EXECUTION_STRING-} in
  *'ray health-check'*)
    trap 'exit 143' TERM
    ray() { command ray "$@" & wait $!; }
    sleep() { command sleep "$@" & wait $!; }
    ;;
esac
