using System;

namespace ZeroBuffer
{
    /// <summary>
    /// The way to a native handle: nobody gets in once it is closed, and it is not closed while somebody is in.
    /// </summary>
    internal sealed class Door
    {
        private readonly NativeHandle _handle;
        private readonly IntPtr _raw;
        private readonly string _what;
        private bool _closed;

        /// <summary>For one thread at a time, or for many.</summary>
        internal Door(NativeHandle handle, bool many, string what)
        {
            _handle = handle;
            _raw = handle.DangerousGetHandle();
            _what = what;
            Gate = many ? null : new Gate();
        }

        /// <summary>What lets one thread in at a time; null if many may be in.</summary>
        internal Gate Gate { get; private set; }

        /// <summary>The handle, until <see cref="Exit"/>.</summary>
        internal IntPtr Enter()
        {
            if (Gate == null)
            {
                // Counts the threads that are in: the last one to leave closes.
                bool entered = false;
                _handle.DangerousAddRef(ref entered);
                return _raw;
            }
            Gate.Enter();
            ExitIfClosed();
            return _raw;
        }

        /// <summary>As <see cref="Enter"/>, but false if somebody is in. Only for one thread at a time.</summary>
        internal bool TryEnter()
        {
            if (!Gate.TryEnter())
            {
                return false;
            }
            ExitIfClosed();
            return true;
        }

        /// <summary>The handle, to be used only by who is inside.</summary>
        internal IntPtr Inside
        {
            get { return _raw; }
        }

        private void ExitIfClosed()
        {
            if (_closed)
            {
                Gate.Exit();
                throw new ObjectDisposedException(_what);
            }
        }

        internal void Exit()
        {
            if (Gate == null)
            {
                _handle.DangerousRelease();
            }
            else
            {
                Gate.Exit();
            }
        }

        /// <summary>Closes the handle once; <paramref name="first"/> runs before, with nobody else inside.</summary>
        internal void Close(Action first = null)
        {
            if (Gate == null)
            {
                _handle.Dispose();
                return;
            }
            Gate.Enter();
            try
            {
                if (!_closed)
                {
                    _closed = true;
                    try
                    {
                        if (first != null)
                        {
                            first();
                        }
                    }
                    finally
                    {
                        _handle.Dispose();
                    }
                }
            }
            finally
            {
                Gate.Exit();
            }
        }
    }
}
