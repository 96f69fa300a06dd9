using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// Bytes to read, which are free of where they came from. One object of a user holds them; when that has ended, the next one
    /// does, since an object with a finalizer costs more to make than a call. Nothing but its holder refers to it, so the
    /// collector finds it with that one.
    /// </summary>
    internal sealed unsafe class ViewHandle : SafeHandle
    {
        /// <summary>The bit that its holder has ended. Below it is the number of threads inside, above it the holder's number.</summary>
        private const long Ended = 1 << 20;
        private const long Inside = Ended - 1;

        private readonly HeldResponses? _held;

        /// <summary>Empty once the collector has found this, which may be before somebody ends it all the same.</summary>
        private readonly WeakReference<ViewHandle>? _self;

        private readonly bool _isCopy;
        private Native.View _view;

        /// <summary>Of a holder that has not ended, with no thread inside, its number.</summary>
        private long _state = Ended;

        /// <summary><paramref name="held"/> counts it while it is held, and keeps it for the next holder; null for neither.</summary>
        internal ViewHandle(HeldResponses? held) : base(IntPtr.Zero, true)
        {
            _held = held;
            _self = held == null ? null : new WeakReference<ViewHandle>(this);
        }

        /// <summary>For one holder, a copy of these bytes, which the native library knows nothing of.</summary>
        internal ViewHandle(ReadOnlySpan<byte> data, out Native.View view) : base(IntPtr.Zero, true)
        {
            // Of nothing it has no address.
            IntPtr memory = Marshal.AllocHGlobal(Math.Max(1, data.Length));
            data.CopyTo(new Span<byte>((void*)memory, data.Length));
            view = new Native.View { Data = (byte*)memory, Length = (UIntPtr)(uint)data.Length };
            _isCopy = true;
        }

        /// <inheritdoc/>
        public override bool IsInvalid => false;

        /// <summary>For a new holder, which enters and ends it by this number.</summary>
        internal long Take(in Native.View view)
        {
            _view = view;
            _held?.Add(Interop.Long(view.Length));
            // The bit is cleared, and the number above it is the next one.
            long holder = _state + Ended;
            Volatile.Write(ref _state, holder);
            return holder;
        }

        internal bool IsHeldBy(long holder) => (Volatile.Read(ref _state) & ~Inside) == holder;

        /// <summary>The bytes stay until <see cref="Leave"/>; false if that holder has ended.</summary>
        internal bool TryEnter(long holder) => Add(1, holder) != 0;

        internal void Leave()
        {
            if (IsFree(Interlocked.Decrement(ref _state)))
            {
                Release();
            }
        }

        /// <summary>Releases the bytes, once the last thread inside has left. Does nothing if that holder has ended.</summary>
        internal void End(long holder)
        {
            if (IsFree(Add(Ended, holder)))
            {
                Release();
            }
        }

        /// <summary>The state after one exchange; 0 if that holder has ended.</summary>
        private long Add(long what, long holder)
        {
            long state = Volatile.Read(ref _state);
            while ((state & ~Inside) == holder)
            {
                long found = Interlocked.CompareExchange(ref _state, state + what, state);
                if (found == state)
                {
                    return state + what;
                }
                state = found;
            }
            return 0;
        }

        private static bool IsFree(long state) => (state & (Ended | Inside)) == Ended;

        private void Release()
        {
            GiveBack();
            if (_held == null || !_self!.TryGetTarget(out _) || !_held.Keep(this))
            {
                Dispose();
            }
        }

        private void GiveBack()
        {
            if (_isCopy)
            {
                Marshal.FreeHGlobal((IntPtr)_view.Data);
                return;
            }
            fixed (Native.View* view = &_view)
            {
                Native.zb_view_release(view);
            }
            _held?.Remove();
        }

        /// <summary>Of what the collector has found its holder ends here, and who is found again cannot use it.</summary>
        protected override bool ReleaseHandle()
        {
            if (IsFree(Add(Ended, Volatile.Read(ref _state) & ~(Ended | Inside))))
            {
                GiveBack();
                _held?.Forgot();
            }
            return true;
        }
    }
}
