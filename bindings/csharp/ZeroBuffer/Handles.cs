using System;
using System.Threading;

namespace ZeroBuffer
{
    internal sealed class ServerHandle : OwnerHandle
    {
        internal ServerHandle() : base(false, "DuplexServer") { }

        protected override void Shutdown() => Native.zb_server_shutdown(handle);

        protected override void CloseNative() => Native.zb_server_close(handle);

        protected override bool ClosingWaits => true;
    }

    internal sealed class ClientHandle : OwnerHandle
    {
        internal ClientHandle() : base(true, "DuplexClient") { }

        /// <summary>Calls under way that no thread waits for.</summary>
        private int _calls;

        /// <summary>Once it is connected.</summary>
        internal HeldResponses Held { get; set; } = null!;

        /// <summary>Null if nobody wants it.</summary>
        internal ConnectionLog? Log { get; set; }

        /// <summary>A call that no thread waits for is under way until <see cref="EndCall"/>.</summary>
        internal void BeginCall() => Interlocked.Increment(ref _calls);

        internal void EndCall() => Interlocked.Decrement(ref _calls);

        private int Callers => ThreadsInside + Volatile.Read(ref _calls);

        /// <summary>Whether there may be somebody who waits for room.</summary>
        internal bool HasCallers => Callers > 0;

        /// <summary>The response to a call.</summary>
        internal Response Hold(in Native.View view)
        {
            Log?.Works();
            Response response = Held.Hold(view);
            if (Callers > 1)
            {
                // Others, for which there was room when they came, may be waiting for what was forgotten since.
                Held.MakeRoom(0);
            }
            return response;
        }

        /// <inheritdoc/>
        protected override Exception Error(Facts facts)
        {
            Exception error = base.Error(facts);
            Log?.Failed(error);
            return error;
        }

        protected override void Shutdown() => Native.zb_client_shutdown(handle);

        protected override void CloseNative() => Native.zb_client_close(handle);
    }

    internal sealed class ReaderHandle : OwnerHandle
    {
        internal ReaderHandle() : base(true, "Reader") { }

        protected override void Shutdown() => Native.zb_reader_shutdown(handle);

        protected override void CloseNative() => Native.zb_reader_close(handle);

        protected override Exception Error(Facts facts) => VersionOneErrors.OfReader(facts);
    }

    internal sealed class WriterHandle : OwnerHandle
    {
        internal WriterHandle() : base(false, "Writer") { }

        protected override void Shutdown() => Native.zb_writer_shutdown(handle);

        protected override void CloseNative() => Native.zb_writer_close(handle);

        protected override Exception Error(Facts facts) => VersionOneErrors.OfWriter(facts);
    }
}
