namespace ZeroBuffer
{
    /// <summary>What core dumps of this process hold.</summary>
    public static class CoreDumps
    {
        /// <summary>
        /// Whether they hold what the process's channels carry. They do not, unless this is called with <c>true</c>, for
        /// what is created from then on.
        /// </summary>
        public static void Include(bool include) => Native.zb_include_in_core_dumps(include ? (byte)1 : (byte)0);
    }
}
