#!/bin/bash
# with-systemd.sh [-u UNITS]... [-b PATH]... [-v] -- COMMAND [ARGUMENT...]
#
# Boots a real systemd, as PID 1 of namespaces of its own on a throw-away overlay of /, runs COMMAND in it as root and takes
# everything down again. The status is COMMAND's; 77 where this cannot be done here, with the reason on stderr.
#   -u  a unit file, or a folder of them, for /etc/systemd/system
#   -b  a path that is the real one inside; whatever else is written is dropped
#   -v  shows the manager's console at the end
set -u
units=() binds=() verbose=''
while [ $# -gt 0 ]; do case $1 in
  -u) units+=("$(readlink -f "$2")"); shift 2 ;;
  -b) binds+=("$(readlink -f "$2")"); shift 2 ;;
  -v) verbose=1; shift ;;
  --) shift; break ;;
  *) echo "with-systemd: what is $1?" >&2; exit 2 ;;
esac; done
[ $# -gt 0 ] || { echo 'with-systemd: no command' >&2; exit 2; }
cannot() { echo "with-systemd: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || cannot 'needs root'
[ -x /lib/systemd/systemd ] || cannot 'systemd is not installed'
hierarchy=$(findmnt -nt cgroup2 -o TARGET | head -1)
[ -n "$hierarchy" ] || cannot 'no cgroup2 is mounted'
inside=$(sed -n 's/^0:://p' /proc/self/cgroup)
cgroup=$hierarchy${inside%/}/with-systemd.$$
work=$(mktemp -d /tmp/with-systemd.XXXXXX)
manager=''

clean() {
  trap - EXIT INT TERM HUP
  if [ -n "$manager" ]; then kill -KILL "$manager" 2>/dev/null; wait "$manager" 2>/dev/null; fi
  if [ -d "$cgroup" ]; then
    [ -e "$cgroup/cgroup.kill" ] && echo 1 > "$cgroup/cgroup.kill" 2>/dev/null
    for _ in $(seq 100); do grep -q 'populated 0' "$cgroup/cgroup.events" && break; sleep 0.05; done
    find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
  fi
  [ -n "$verbose" ] && sed 's/^/[systemd] /' "$work/console" >&2
  rm -rf "$work"
}
trap 'status=$?; clean; exit $status' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$cgroup" "$cgroup/command" 2>/dev/null || cannot "cannot make the cgroup $cgroup"
printf '%s\n' "${units[@]+"${units[@]}"}" > "$work/units"
printf '%s\n' "${binds[@]+"${binds[@]}"}" > "$work/binds"

# What becomes PID 1 in there: lays out the root, then is systemd.
cat > "$work/boot" <<'BOOT'
set -eu
mount --make-rprivate /
root=$work/root layer=$work/layer
mkdir -p "$root" "$layer"
mount -t tmpfs -o mode=755 tmpfs "$layer"
mkdir "$layer/upper" "$layer/work"
mount -t overlay overlay -o lowerdir=/,upperdir="$layer/upper",workdir="$layer/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 -o nsdelegate cgroup2 "$root/sys/fs/cgroup" 2>/dev/null || mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$root/dev/$node"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%%:*}" "$root/dev/${stream#*:}"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/lock"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Nothing that the machine starts for itself; of systemd's own the journal and the bus.
system=$root/usr/lib/systemd/system
rm -rf "$root"/etc/systemd/system/* "$root"/usr/lib/systemd/system-generators/* "$root"/var/log/journal "$root"/etc/fstab
rm -rf "$system"/{sysinit,basic,multi-user,graphical,sockets,timers,local-fs,remote-fs,network-online,rescue,emergency}.target.wants
mkdir -p "$system/sysinit.target.wants" "$system/sockets.target.wants" "$root/etc/systemd/journald.conf.d"
ln -s ../systemd-journald.service "$system/sysinit.target.wants/"
for unit in systemd-journald.socket systemd-journald-dev-log.socket dbus.socket; do
  [ ! -e "$system/$unit" ] || ln -s "../$unit" "$system/sockets.target.wants/"
done
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n' > "$root/etc/systemd/journald.conf.d/here.conf"
ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
while read -r unit; do
  if [ -d "$unit" ]; then cp -r "$unit/." "$root/etc/systemd/system/"; elif [ -n "$unit" ]; then cp "$unit" "$root/etc/systemd/system/"; fi
done < "$work/units"
while read -r path; do
  [ -n "$path" ] || continue
  if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$(dirname "$root$path")"; : >> "$root$path"; fi
  mount --rbind "$path" "$root$path"
done < "$work/binds"
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
cd /
mount --make-rshared /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=with-systemd LANG=C.UTF-8 \
  /lib/systemd/systemd --system --log-level=info --log-target=journal --show-status=no </dev/null
BOOT

export work
(
  echo $BASHPID > "$cgroup/cgroup.procs"
  exec setsid unshare --fork --pid --kill-child=KILL --mount --cgroup --uts --ipc bash "$work/boot"
) > "$work/console" 2>&1 </dev/null &
manager=$!
first='' up=''
for _ in $(seq 1200); do
  kill -0 "$manager" 2>/dev/null || { cat "$work/console" >&2; cannot 'the manager ended'; }
  [ -n "$first" ] || first=$(tr -d ' ' 2>/dev/null < "/proc/$manager/task/$manager/children")
  if [ -n "$first" ] && [ "$(cat "/proc/$first/comm" 2>/dev/null)" = systemd ]; then
    case $(nsenter -t "$first" -m -p -C -u -i -- systemctl is-system-running 2>/dev/null) in running | degraded) up=1; break ;; esac
  fi
  sleep 0.05
done
[ -n "$up" ] || { cat "$work/console" >&2; cannot 'not up within 60 s'; }
# In the background, so that a TERM to this script is acted on at once.
(
  echo $BASHPID > "$cgroup/command/cgroup.procs"
  unset work NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID LISTEN_FDNAMES XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS
  exec nsenter -t "$first" -m -p -C -u -i -- sh -c 'cd / && cd "$0" 2>/dev/null; exec "$@"' "$PWD" "$@"
) <&0 &
wait $!
