using System;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>How values go to the native library and come back.</summary>
    internal static unsafe class Interop
    {
        internal delegate int CopyOut(byte* buffer, UIntPtr capacity, UIntPtr* length);

        /// <summary>Nanoseconds; <see cref="Timeout.InfiniteTimeSpan"/> is for ever.</summary>
        internal static long Nanoseconds(TimeSpan timeout)
        {
            long ticks = timeout.Ticks;
            if (ticks >= 0)
            {
                return ticks <= long.MaxValue / 100 ? ticks * 100 : long.MaxValue;
            }
            if (timeout == Timeout.InfiniteTimeSpan)
            {
                return -1;
            }
            throw new ArgumentOutOfRangeException(nameof(timeout), timeout, "a timeout is not negative, or Timeout.InfiniteTimeSpan");
        }

        /// <summary>For configurations, where 0 stands for the default: no time is one nanosecond.</summary>
        internal static long NanosecondsOrDefault(TimeSpan? timeout)
        {
            long nanoseconds = timeout.HasValue ? Nanoseconds(timeout.Value) : 0;
            return timeout.HasValue && nanoseconds == 0 ? 1 : nanoseconds;
        }

        /// <summary>For the runtime's own waits: what is longer than they can be is for ever.</summary>
        internal static TimeSpan Waitable(TimeSpan timeout) =>
            timeout.TotalMilliseconds > int.MaxValue ? Timeout.InfiniteTimeSpan : timeout;

        /// <summary>What is left of it.</summary>
        internal static TimeSpan Left(TimeSpan timeout, Stopwatch since)
        {
            TimeSpan left = timeout - since.Elapsed;
            return timeout == Timeout.InfiniteTimeSpan ? timeout : left > TimeSpan.Zero ? left : TimeSpan.Zero;
        }

        internal static UIntPtr Size(long bytes, string what)
        {
            if (bytes < 0)
            {
                throw new ArgumentOutOfRangeException(what, bytes, "a size is not negative");
            }
            return (UIntPtr)(ulong)bytes;
        }

        internal static long Long(UIntPtr size) => (long)(ulong)size;

        /// <summary>For configurations, where 0 stands for the default.</summary>
        internal static uint Positive(int? value, string what) => (uint)Positive((long?)value, what);

        /// <summary>The same of what may be larger.</summary>
        internal static UIntPtr Positive(long? value, string what)
        {
            if (value.HasValue && value.Value <= 0)
            {
                throw new ArgumentOutOfRangeException(what, value.Value, "must be positive");
            }
            return (UIntPtr)(ulong)value.GetValueOrDefault();
        }

        /// <summary>The name of a buffer of version 1, of which others ask nothing more.</summary>
        internal static void RefuseEmpty(string name)
        {
            if (string.IsNullOrEmpty(name))
            {
                throw name == null
                    ? new ArgumentNullException(nameof(name))
                    : new ArgumentException("a name has at least one character", nameof(name));
            }
        }

        /// <summary>A name in UTF-8, with a zero at its end and none before.</summary>
        internal static byte[] Name(string name)
        {
            if (name == null)
            {
                throw new ArgumentNullException(nameof(name));
            }
            if (name.IndexOf('\0') >= 0)
            {
                throw new BadNameException("a channel name has no zero characters", name, "it has a zero character");
            }
            return Encoding.UTF8.GetBytes(name + "\0");
        }

        /// <summary>For configurations, where no pointer stands for the default.</summary>
        internal static byte[]? NameOrDefault(string? name) => name == null ? null : Name(name);

        internal static string Text(byte* text, UIntPtr length)
        {
            int bytes = (int)Math.Min((ulong)length, int.MaxValue);
            return bytes == 0 ? "" : Encoding.UTF8.GetString(text, bytes);
        }

        /// <summary>The bytes that a native function copies out, asking first how many there are.</summary>
        internal static byte[] Bytes(CopyOut copy)
        {
            UIntPtr length;
            ZeroBufferException.ThrowIfFailed(copy(null, UIntPtr.Zero, &length));
            byte[] bytes;
            int status;
            do
            {
                // A pinned empty array has no address.
                bytes = new byte[Math.Max(1, Long(length))];
                fixed (byte* buffer = bytes)
                {
                    status = copy(buffer, (UIntPtr)bytes.Length, &length);
                }
                // Again if the peer has written more meanwhile; there may also be less.
            }
            while (status == (int)ErrorKind.TooLarge);
            ZeroBufferException.ThrowIfFailed(status);
            Array.Resize(ref bytes, checked((int)Long(length)));
            return bytes;
        }

        /// <summary>Answers with a failure.</summary>
        internal static int Fail(Native.Frame* frame, string message)
        {
            byte[] text = Encoding.UTF8.GetBytes(message);
            fixed (byte* bytes = text)
            {
                return Native.zb_frame_fail(frame, bytes, (UIntPtr)text.Length);
            }
        }

        internal static Span<byte> Span(byte* data, UIntPtr length) => new Span<byte>(data, checked((int)(ulong)length));

        internal static ReadOnlySpan<byte> ReadOnlySpan(byte* data, UIntPtr length) =>
            new ReadOnlySpan<byte>(data, checked((int)(ulong)length));
    }
}
