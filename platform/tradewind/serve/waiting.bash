# Every bash of a Ray image reads this before its command (BASH_ENV). KubeRay lets a pod wait for Ray's head in a loop of
# bash, and process 1 of a container heeds no signal that it has no trap for: a pod that is taken away while it waits
# would stay for as long as one that drains may, which is hours.
case ${BASH_EXECUTION_STRING-} in *'ray health-check'*) trap 'exit 143' TERM ;; esac
