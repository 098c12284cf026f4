#!/bin/bash
# systemd.sh ROOT HOB: boots the systemd that is installed in ROOT as the first process of a container, and runs HOB
# under it. Needs root, cgroup2 and systemd-nspawn. ROOT stays as it is. One way to make it:
#   mmdebstrap --variant=essential --include=systemd,systemd-sysv,dbus,procps,passwd trixie ROOT
set -u
if [ "${1-}" != inside ]; then
    root=$(realpath "$1") hob=$(realpath "$2") self=$(realpath "$0")
    cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ -n "$cgroup" ] || { echo "no cgroup2 is mounted" >&2; exit 98; }
    cgroup=$cgroup/hob-systemd-$$ over=$(mktemp -d) log=$(mktemp)
    mkdir "$cgroup" || exit 98
    mount -t tmpfs hob "$over" && mkdir "$over/up" "$over/work" "$over/root" &&
        mount -t overlay hob -o "lowerdir=$root,upperdir=$over/up,workdir=$over/work" "$over/root" || exit 98
    mkdir -p "$over/root/opt/hob" && cp "$hob" "$over/root/opt/hob/hob" && cp "$self" "$over/root/opt/hob/test.sh"
    clean() {
        find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
        umount "$over/root" "$over"; rm -rf "$over" "$log"
    }
    trap clean EXIT
    (
        echo $BASHPID > "$cgroup/cgroup.procs"
        # A private view of cgroup2, so that the machine's own is left alone.
        exec unshare -Cmpf --kill-child --propagation private --mount-proc sh -c '
            mount -t cgroup2 none /sys/fs/cgroup
            exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -q -D "$0" --register=no --keep-unit --boot \
                --console=pipe' "$over/root" </dev/null >"$log" 2>&1
    ) &
    outer=$! init=
    for _ in $(seq 300); do
        for c in $(pgrep -P $outer); do
            for g in $(pgrep -P "$c"); do
                case $(tr '\0' ' ' </proc/"$g"/cmdline) in */systemd/systemd*) init=$g ;; esac
            done
        done
        [ -n "$init" ] && break
        sleep 0.1
    done
    [ -n "$init" ] || { echo "no systemd came up:" >&2; cat "$log" >&2; kill $outer; exit 99; }
    for _ in $(seq 600); do
        case $(nsenter -t "$init" -a systemctl is-system-running 2>/dev/null) in running | degraded) break ;; esac
        sleep 0.1
    done
    nsenter -t "$init" -a bash /opt/hob/test.sh inside
    code=$?
    kill -s RTMIN+4 "$init"
    wait $outer
    exit $code
fi

# In the container.
export HOB_HOME=/var/lib/hobt
hob=/opt/hob/hob failed=0
fail() { echo "FAILED: $*"; failed=1; systemctl status hobt.service --no-pager -l 2>&1 | head -30; }
ok() { echo "ok: $*"; }
show() { systemctl show hobt.service -p "$1" --value; }
# Waits until a condition holds.
until_ok() {
    local what=$1; shift
    for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
    fail "waited for: $what"; return 1
}
is() { [ "$(show "$1")" = "$2" ]; }
pid_of() { $hob call daemon.health '{}' --json | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }
unit() { # type, more lines for the service
    cat >/etc/systemd/system/hobt.service <<EOF
[Service]
Type=$1
ExecStart=$hob --home $HOB_HOME run
KillMode=mixed
Delegate=yes
Restart=on-failure
RestartSec=100ms
$2
EOF
    systemctl daemon-reload
}

systemctl --version | head -1
mkdir -p $HOB_HOME && chmod 700 $HOB_HOME
cat >$HOB_HOME/hob.json <<'EOF'
{ "services": { "web": { "command": "env | grep -E '^(NOTIFY|WATCHDOG|LISTEN)_'; echo end; exec sleep 1000" },
                "late": { "command": "sleep 1; echo up; exec sleep 1000", "ready": { "log": "up" } } } }
EOF

unit notify-reload 'WatchdogSec=3'
begin=$(date +%s%N)
systemctl start hobt.service || fail "it does not start"
took=$((($(date +%s%N) - begin) / 1000000))
if is ActiveState active && [ $took -ge 900 ]; then ok "READY=1 came when the services were up, after $took ms"
else fail "it was ready too early: $took ms"; fi
until_ok "its status" is StatusText "2 of 2 services run" && ok "STATUS=$(show StatusText)"
main=$(show MainPID)
[ "$(pid_of keeper_pid)" = "$main" ] && ok "the keeper is the main pid" || fail "MainPID is $main"
[ "$(cat $HOB_HOME/logs/services/web.log)" = end ] && ok "jobs hear nothing of the manager" || fail "web has the manager's variables"
$hob doctor | grep -q 'control groups are not used' && fail "control groups are not used" || ok "its control group is delegated"
$hob call daemon.status '{}' | grep -q '"init": *"systemd"' && ok "the platform names systemd" || fail "the platform does not name systemd"

if systemctl reload hobt.service && is ActiveState active; then ok "RELOADING=1 and READY=1 by systemctl reload"
else fail "systemctl reload"; fi
echo '{ nonsense' >$HOB_HOME/bad.json
cp $HOB_HOME/hob.json $HOB_HOME/good.json; cp $HOB_HOME/bad.json $HOB_HOME/hob.json
systemctl reload hobt.service; is ActiveState active && ok "a config with mistakes leaves it active" || fail "a bad reload"
cp $HOB_HOME/good.json $HOB_HOME/hob.json; systemctl reload hobt.service

daemon=$(pid_of pid)
kill -9 "$daemon"
until_ok "another daemon" sh -c "[ \"\$($hob call daemon.health '{}' --json | sed 's/.*\"pid\":\([0-9]*\).*/\1/')\" != $daemon ]"
if is MainPID "$main" && is NRestarts 0; then ok "kill -9 of the daemon is a non-event"; else fail "after kill -9"; fi
sleep 7
if is MainPID "$main" && is NRestarts 0 && is ActiveState active; then ok "WATCHDOG=1 in time, with a heartbeat of 30 s"
else fail "the watchdog was not fed"; fi
cp $hob /opt/hob/other && $hob upgrade --binary /opt/hob/other || fail "upgrade"
sleep 5
if is MainPID "$main" && is NRestarts 0; then ok "an upgrade keeps the main pid and feeds the watchdog"; else fail "after upgrade"; fi
kill -STOP "$(pid_of pid)"
until_ok "a restart by the watchdog" is NRestarts 1 && ok "no word, no ping: systemd restarts a hob that hangs"
until_ok "it is active again" is ActiveState active
until_ok "it answers" $hob ping

# A service that takes longer to stop than systemd would wait, and an inhibitor.
cat >$HOB_HOME/hob.json <<'EOF'
{ "services": { "slow": { "command": "trap 'sleep 5; echo stopped; exit 0' TERM; while :; do sleep 0.05; done" } } }
EOF
unit notify 'TimeoutStopSec=2'
systemctl restart hobt.service
$hob inhibit --why "a test" -- sleep 2 &
until_ok "the inhibitor" sh -c "$hob inhibit | grep -q 'a test'"
systemctl stop hobt.service
if is Result success && grep -q '^stopped$' $HOB_HOME/logs/services/slow.log; then ok "EXTEND_TIMEOUT_USEC: a slow stop in its time"
else fail "the stop was cut off: $(show Result)"; fi
wait

# Socket activation.
cat >/etc/systemd/system/hobt.socket <<EOF
[Socket]
ListenStream=$HOB_HOME/run/hob.sock
SocketMode=0660
FileDescriptorName=hob
EOF
unit notify ''
systemctl start hobt.socket || fail "the socket unit"
is ActiveState inactive || fail "hob runs before anybody connects"
inode=$(stat -c %i $HOB_HOME/run/hob.sock)
$hob doctor | grep -q 'a service manager listens' && is ActiveState inactive && ok "doctor sees the socket and does not start hob" || fail "doctor and the socket"
$hob ping && is ActiveState active && ok "the first client starts it" || fail "socket activation"
kill -9 "$(pid_of pid)"; $hob ping >/dev/null && ok "the socket outlives the daemon" || fail "after kill -9"
cp $hob /opt/hob/third && $hob upgrade --binary /opt/hob/third >/dev/null && $hob ping >/dev/null && ok "and an upgrade" || fail "upgrade"
$hob stop && until_ok "the end" is ActiveState inactive
if [ "$(stat -c '%i %a' $HOB_HOME/run/hob.sock)" = "$inode 660" ]; then ok "the socket is left as it was"; else fail "the socket was touched"; fi
$hob ping && ok "the next client starts it again" || fail "second activation"
$hob stop --force && [ -S $HOB_HOME/run/hob.sock ] && ok "--force leaves the socket too" || fail "--force"

[ $failed = 0 ] && echo "all is well"
exit $failed
