using System;

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

        /// <summary>Once it is connected.</summary>
        internal HeldResponses Held { get; set; } = null!;

        /// <summary>Null if nobody wants it.</summary>
        internal ConnectionLog? Log { get; set; }

        /// <summary>The response to a call.</summary>
        internal Response Hold(in Native.View view)
        {
            Log?.Works();
            return Held.Hold(view);
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
