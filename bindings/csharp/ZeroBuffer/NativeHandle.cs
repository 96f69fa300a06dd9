using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// A native object. It is freed once: by the last thread to leave it after its end, or by the collector. It alone has a
    /// finalizer, which comes after those of users, and never waits.
    /// </summary>
    internal abstract class NativeHandle : SafeHandle
    {
        private readonly string _what;
        private HandleLock _lock;

        /// <summary><paramref name="what"/> is the class that a user knows.</summary>
        protected NativeHandle(bool many, string what) : base(IntPtr.Zero, true)
        {
            _lock = new HandleLock(many);
            _what = what;
        }

        /// <inheritdoc/>
        public override bool IsInvalid => handle == IntPtr.Zero;

        internal bool HasEnded => _lock.HasEnded;

        internal int ThreadsInside => _lock.ThreadsInside;

        /// <summary>The native object, until <see cref="Leave"/>.</summary>
        internal IntPtr Enter()
        {
            if (!_lock.TryEnter())
            {
                Enter(Timeout.InfiniteTimeSpan);
            }
            return handle;
        }

        /// <summary>False if others were inside until the time had passed.</summary>
        internal bool Enter(TimeSpan timeout)
        {
            bool entered = _lock.Enter(timeout);
            return entered || !HasEnded ? entered : throw Ended();
        }

        /// <summary>False if it has ended, or if no more threads may be inside.</summary>
        internal bool TryEnter() => _lock.TryEnter();

        /// <summary>The native object, for a thread inside.</summary>
        internal IntPtr Inside => handle;

        internal virtual void Leave() => LeaveLock();

        /// <summary>
        /// For what any thread may do beside those inside, and then leaves; false if it has ended.
        /// </summary>
        internal bool Visit() => _lock.Visit();

        protected void LeaveLock()
        {
            if (_lock.Leave())
            {
                Free();
            }
        }

        /// <summary>Ends it, and the waits of the threads inside. False if it has ended before.</summary>
        internal bool End()
        {
            if (!_lock.End())
            {
                return false;
            }
            EndWaits(!_lock.IsAlone);
            LeaveLock();
            return true;
        }

        /// <summary>For a thread inside.</summary>
        internal void EndInside() => _lock.EndInside();

        /// <summary>Until the last thread has left what has ended, and it is freed.</summary>
        internal void AwaitFreed() => _lock.AwaitFreed();

        internal void ThrowIfEnded()
        {
            if (HasEnded)
            {
                throw Ended();
            }
        }

        /// <summary>Throws nothing as long as threads inside have not left what has ended.</summary>
        internal void ThrowIfFreed()
        {
            if (_lock.IsFreed)
            {
                throw Ended();
            }
        }

        /// <summary>What a native call of a thread inside has said. That it failed is no matter after the end.</summary>
        internal void ThrowIfFailed(int status)
        {
            if (status != 0)
            {
                throw Failure();
            }
        }

        /// <summary>Why the latest native call of this thread, which is inside, has failed.</summary>
        internal Exception Failure() => HasEnded ? Ended() : Error(new Facts());

        /// <summary>What is thrown for these facts.</summary>
        protected virtual Exception Error(Facts facts) => ZeroBufferException.Of(facts);

        private ObjectDisposedException Ended() => new ObjectDisposedException(_what);

        private void Free()
        {
            Dispose();
            _lock.SetFreed();
        }

        protected virtual void EndWaits(bool othersInside) { }

        /// <inheritdoc/>
        protected sealed override bool ReleaseHandle()
        {
            // If the collector frees it, somebody who is found again must not get in.
            _lock.EndInside();
            ReleaseNative();
            return true;
        }

        /// <summary>Frees the native object.</summary>
        protected abstract void ReleaseNative();
    }

    /// <summary>A client, server, reader or writer: what guards come from.</summary>
    internal abstract class OwnerHandle : NativeHandle
    {
        private readonly bool _many;

        /// <summary>The guard that was handed out last; one that was forgotten is to be collected all the same.</summary>
        private readonly WeakReference<GuardHandle?> _out = new WeakReference<GuardHandle?>(null);

        /// <summary>A guard that was ended while a thread was inside, which only that thread may release.</summary>
        private GuardHandle? _ended;
        private bool _isClosed;
        private bool _wasForgotten;

        protected OwnerHandle(bool many, string what) : base(many, what)
        {
            _many = many;
        }

        /// <summary>Takes over what a native function has made.</summary>
        internal void Take(IntPtr made) => SetHandle(made);

        /// <summary>For a thread inside: the one guard that is open from now on; null for none.</summary>
        internal void HandOut(GuardHandle? guard)
        {
            _out.SetTarget(guard);
            // A thread that ends this meanwhile finds the guard, or is found here.
            Interlocked.MemoryBarrier();
            if (guard != null && HasEnded)
            {
                guard.End();
            }
        }

        /// <summary>Ends the guard that is open, if one is.</summary>
        internal void EndGuard()
        {
            if (_out.TryGetTarget(out GuardHandle? guard))
            {
                guard?.End();
            }
        }

        /// <summary>Ends the waits of the threads inside, and no more.</summary>
        internal void ShutDown()
        {
            if (Visit())
            {
                Shutdown();
                EndVisit();
            }
        }

        internal sealed override void Leave()
        {
            GiveBackInside();
            EndVisit();
        }

        /// <summary>As <see cref="Leave"/>, after <see cref="NativeHandle.Visit"/>, which does not keep others out.</summary>
        internal void EndVisit()
        {
            LeaveLock();
            // One that was ended meanwhile, by a thread that could not enter because of this one.
            while (Volatile.Read(ref _ended) != null && TryEnter())
            {
                GiveBackInside();
                LeaveLock();
            }
        }

        /// <summary>Releases what a guard holds: now if no thread is inside, otherwise when that one leaves.</summary>
        internal void GiveBack(GuardHandle guard)
        {
            if (_many)
            {
                guard.GiveBack();
                return;
            }
            if (!Keep(guard))
            {
                guard.GiveBack();
            }
            else if (TryEnter())
            {
                Leave();
            }
        }

        /// <summary>For the thread that leaves next, or closes it; false if it is closed.</summary>
        private bool Keep(GuardHandle guard)
        {
            lock (this)
            {
                if (!_isClosed)
                {
                    _ended = guard;
                }
                return !_isClosed;
            }
        }

        private void GiveBackInside()
        {
            if (Volatile.Read(ref _ended) != null)
            {
                Interlocked.Exchange(ref _ended, null)?.GiveBack();
            }
        }

        protected sealed override void EndWaits(bool othersInside)
        {
            if (othersInside)
            {
                Shutdown();
            }
            EndGuard();
        }

        /// <inheritdoc/>
        protected sealed override void Dispose(bool disposing)
        {
            _wasForgotten = !disposing;
            base.Dispose(disposing);
        }

        protected sealed override void ReleaseNative()
        {
            if (_wasForgotten && ClosingWaits)
            {
                // Finalizers are not to be kept waiting.
                Elsewhere.Run("zerobuffer-close", CloseAll);
            }
            else
            {
                CloseAll();
            }
        }

        private void CloseAll()
        {
            GiveBackInside();
            CloseNative();
            lock (this)
            {
                _isClosed = true;
            }
            // One that was ended meanwhile. The native library has kept what it needs.
            GiveBackInside();
        }

        /// <summary>Ends the waits of all threads inside; any thread may call it.</summary>
        protected abstract void Shutdown();

        /// <summary>Closes the native object.</summary>
        protected abstract void CloseNative();

        /// <summary>Whether that may wait for others.</summary>
        protected virtual bool ClosingWaits => false;
    }
}
