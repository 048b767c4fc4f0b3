#!/usr/bin/perl
# A poold client in Perl, core modules only, written from PROTOCOL.md alone. Needs a Perl with 64-bit integers.
#
#     printf '%s\n' 'call 1 text.summarize 2000 {"text": "One. Two."}' 'call 2 pool.method 0 @body.bin' 'cancel 2' | perl client.pl SOCKET
#
# call ID METHOD BUDGET_MS BODY: sends a call and goes on (BODY @PATH: a file's bytes; BUDGET_MS 0: the pool's default); cancel ID; ping;
# methods; wait: until all are answered. Answers are printed as they come, in any order: `ID result BODY`, `ID error STATUS TEXT`.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use IO::Select;
use IO::Socket::UNIX;

my ($HELLO, $WELCOME, $METHODS, $CALL, $RESULT, $ERROR, $CANCEL, $PING, $PONG, $DRAIN) = (1, 2, 3, 4, 5, 7, 8, 11, 12, 13);
my ($END, $NAMED) = (1, 8);
my $HEADER = 'N C C n Q> Q> Q>';    # length, type, flags, code, id, session, time

die "usage: perl client.pl SOCKET < commands\n" unless @ARGV == 1;
my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no poold on $ARGV[0]: $!\n";
$socket->blocking(0);
binmode $_ for $socket, *STDIN, *STDOUT;
$SIG{PIPE} = 'IGNORE';
my $select = IO::Select->new($socket);
my ($in, $out) = ('', '');          # bytes that are no whole frame yet, bytes that poold has not taken yet
my $largest = 1 << 20;              # until WELCOME names another
my ($welcomed, $pings) = (0, 0);
my (%method, %unanswered);          # name => [number, codec]; ids of calls

sub add_frame {
    my ($type, $flags, $code, $id, $time, $body) = @_;
    $out .= pack($HEADER, 28 + length $body, $type, $flags, $code, $id, 0, $time) . $body;
}

sub learn {
    my ($count, $at, $list) = (unpack('n', $_[0]), 2, $_[0]);
    for (1 .. $count) {
        my ($number, $codec, $flags, $name) = unpack("x$at n C C C/a", $list);
        if ($flags & 1) { delete $method{$name} } else { $method{$name} = [$number, $codec] }
        $at += 5 + length $name;
    }
}

sub take_frame {
    my ($type, $code, $id, $time, $body) = @_;
    if ($type == $WELCOME) {
        (my $version, my $calls, my $features, $largest) = unpack 'n n N N', $body;
        learn(substr $body, 16);
        $welcomed = 1;
    }
    elsif ($type == $METHODS) { learn($body) }
    elsif ($type == $RESULT)  { print "$id result $body\n"; delete $unanswered{$id} }
    elsif ($type == $ERROR) {
        die "poold ends the connection: status $code: $body\n" unless $id;
        print "$id error $code $body\n";
        delete $unanswered{$id};
    }
    elsif ($type == $PING)  { add_frame($PONG, 0, 0, $id, $time, $body) }
    elsif ($type == $PONG)  { print "pong $body\n"; $pings-- }
    elsif ($type == $DRAIN) { print "draining: new calls belong on a new connection\n" }
    else                    { die "poold sent a frame of type $type\n" }
}

sub take_frames {
    my $at = 0;
    while (length($in) - $at >= 32) {
        my ($length, $type, $flags, $code, $id, $session, $time) = unpack "x$at $HEADER", $in;
        die "poold sent a frame of length $length\n" if $length < 28 || $length - 28 > $largest;
        last if length($in) - $at < 4 + $length;
        take_frame($type, $code, $id, $time, substr $in, $at + 32, $length - 28);
        $at += 4 + $length;
    }
    substr $in, 0, $at, '';
}

# Writes or reads, whatever can be done now: who does not read is read no further in the end.
sub step {
    my ($readable, $writable) = IO::Select->select($select, length $out ? $select : undef);
    if ($readable && @$readable) {
        my $count = sysread $socket, $in, 1 << 18, length $in;
        return if !defined $count && ($! == EAGAIN || $! == EINTR);
        die "poold closed the connection; calls without an answer: " . join(' ', sort keys %unanswered) . "\n" unless $count;
        return take_frames();
    }
    return unless $writable && @$writable;
    my $count = syswrite $socket, $out;
    if (defined $count) { substr $out, 0, $count, '' }
    elsif ($! != EAGAIN && $! != EINTR) { die "poold closed the connection: $!\n" }
}

sub call {
    my ($id, $name, $milliseconds, $body) = @_;
    if ($body =~ /^@(.+)/s) {
        open my $file, '<:raw', $1 or die "cannot read $1: $!\n";
        local $/;
        $body = <$file>;
    }
    die "call $id is too large: poold takes $largest bytes\n" if length($body) + 1 + length $name > $largest;
    my $known = $method{$name};
    if ($known) { add_frame($CALL, $END, $known->[0], $id, $milliseconds * 1_000_000, $body) }
    else        { add_frame($CALL, $END | $NAMED, 0, $id, $milliseconds * 1_000_000, pack('C/a', $name) . $body) }
    $unanswered{$id} = 1;
}

$| = 1;
add_frame($HELLO, 0, 0, 0, 0, pack 'n n N C/a', 1, 1, 0, 'client.pl');    # versions 1 to 1, no features, a name
step() until $welcomed;
while (my $line = <STDIN>) {
    chomp $line;
    if    ($line =~ /^call (\d+) (\S{1,255}) (\d+) ?(.*)$/s) { call($1, $2, $3, $4) }
    elsif ($line =~ /^cancel (\d+)$/) { add_frame($CANCEL, 0, 0, $1, 0, '') }
    elsif ($line eq 'ping')           { add_frame($PING, 0, 0, 1, 0, 'there?'); $pings++ }
    elsif ($line eq 'methods')        { print "$method{$_}[0] $method{$_}[1] $_\n" for sort { $method{$a}[0] <=> $method{$b}[0] } keys %method }
    elsif ($line ne 'wait')           { die "unknown command: $line\n" }
    step() while length $out || $line eq 'wait' && %unanswered;
}
step() while %unanswered || $pings > 0;
